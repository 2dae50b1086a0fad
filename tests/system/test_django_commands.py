"""`manage.py opsq ...` and `manage.py check` in a Django project."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import django_project
from support.django_project import DjangoLab

TASKS = """
from django.conf import settings

from opsq import shared_task


@shared_task
def zone():
    return settings.TIME_ZONE
"""

OTHER_SETTINGS = """
from .settings import *

TIME_ZONE = "Asia/Tokyo"
"""

HURTING_SETTINGS = """
from .settings import *

CELERY_TASK_ALWAYS_EAGER = True
CELERY_RESULT_EXPIRES = None
"""

#: What is added to the settings, and what `manage.py check` says of it.
MISTAKES = [
    ('CELERY_RESULT_BACKEND = "mongodb://x"', "opsq.E001", "as result backend"),
    ("CELERY_TASK_ALWAYS_EAGER = True\nCELERY_ALWAYS_EAGER = False", "opsq.E001", "names of one setting"),
    ("CELERY_BROKER_URL = 'redis//x'", "opsq.E001", "cannot use 'redis//x' as broker"),
    ("CELERY_WORKER_CONCURENCY = 3", "opsq.W004", "Did you mean CELERY_WORKER_CONCURRENCY?"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DjangoLab]:
    files = {"proj/other_settings.py": OTHER_SETTINGS, "proj/hurting_settings.py": HURTING_SETTINGS}
    with django_project.opened(tmp_path_factory, TASKS, files) as project:
        yield project


def test_manage_py_runs_a_worker_with_the_settings_that_it_was_told(project: DjangoLab) -> None:
    lab = project.lab
    argv = [sys.executable, "manage.py", "opsq", "worker", "-l", "info", "-c", "1", "--settings", "proj.other_settings"]
    running = lab.spawn(argv, env=lab.environment, cwd=project.folder)
    lab.wait_for(lambda: " ready." in running.output() or not running.alive(), "it is ready", 30)
    assert project.run("zone") == "Asia/Tokyo"
    assert running.stop() == 0, running.report()


def test_manage_py_finds_the_app_from_any_folder(project: DjangoLab, tmp_path: Path) -> None:
    manage = str(project.folder / "manage.py")
    done = project.python(manage, "opsq", "tasks", "--json", folder=tmp_path, PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    assert "shop.tasks.zone" in done.stdout


def test_manage_py_means_its_project_from_any_folder(project: DjangoLab, tmp_path: Path) -> None:
    """Which supervisor is asked does not hang on where one stands."""
    manage = str(project.folder / "manage.py")
    environment = {"OPSQ_STATE_DIR": "", "OPSQ_BROKER_URL": "redis://127.0.0.1:1/0"}
    looked = {
        project.python(manage, "opsq", "status", folder=folder, **environment).stderr.splitlines()[-2]
        for folder in (tmp_path, project.folder, project.folder / "shop" / "migrations")
    }
    [line] = looked
    assert line.startswith("opsq: no supervisor runs here: looked in ")
    assert "project-" in line


def test_a_mistake_is_one_sentence_with_the_exit_code_of_opsq(project: DjangoLab) -> None:
    done = project.python("manage.py", "opsq", "queue")
    assert done.returncode == 2
    assert done.stderr.startswith("opsq: ")
    assert "Traceback" not in done.stderr


def test_the_help_is_that_of_opsq(project: DjangoLab) -> None:
    for words in (["opsq", "--help"], ["help", "opsq"]):
        assert "opsq up" in project.manage(*words)


def test_a_program_can_call_the_command(project: DjangoLab) -> None:
    source = """
import contextlib, io
from django.core.management import CommandError, call_command
said = io.StringIO()
with contextlib.redirect_stdout(said):
    call_command("opsq", "queues", "--json")
try:
    call_command("opsq", "queues", "--nonsense")
except CommandError as error:
    code = error.returncode
answer = [said.getvalue(), code]
"""
    said, code = project.program(source)
    assert "queues" in json.loads(said)
    assert code == 2


def test_check_warns_of_eager_mode_and_of_results_that_stay_for_ever(project: DjangoLab) -> None:
    assert "no issues" in project.manage("check")
    told = project.python("manage.py", "check", "--settings", "proj.hurting_settings").stderr
    assert "opsq.W001" in told
    assert "opsq.W002" in told


def test_check_warns_of_a_broker_that_evicts(project: DjangoLab) -> None:
    redis = project.lab.redis
    redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert "opsq.W003" in project.python("manage.py", "check").stderr
    finally:
        redis.config_set("maxmemory-policy", "noeviction")
    before = time.monotonic()
    assert "no issues" in project.manage("check", OPSQ_BROKER_URL="redis://127.0.0.1:1/0")
    assert time.monotonic() - before < 30


@pytest.mark.parametrize(("settings", "check", "says"), MISTAKES)
def test_check_tells_of_settings_that_cannot_be_meant(project: DjangoLab, settings: str, check: str, says: str) -> None:
    (project.folder / "proj" / "mistaken_settings.py").write_text(f"from .settings import *\n\n{settings}\n")
    environment = {"OPSQ_BROKER_URL": ""} if "BROKER" in settings else {}
    argv = ["manage.py", "check", "--settings", "proj.mistaken_settings"]
    done = project.python(*argv, **environment)
    assert done.stderr.count(check) == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == (check == "opsq.E001")


def test_check_warns_of_results_that_a_database_keeps_for_ever(project: DjangoLab) -> None:
    settings = "from .settings import *\n\nCELERY_RESULT_BACKEND = 'django-db'\nCELERY_RESULT_EXPIRES = 0\n"
    (project.folder / "proj" / "database_settings.py").write_text(settings)
    assert "opsq.W002" in project.python("manage.py", "check", "--settings", "proj.database_settings").stderr
