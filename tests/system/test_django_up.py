"""`opsq up` in a Django project: what runs is found by `manage.py` and the settings alone, also from folders below."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import django_project
from support.django_project import FILES
from support.supervised import Supervised

from opsq.runtime import statedir

TASKS = """
from opsq import shared_task

from .models import Note


@shared_task
def double(number):
    return 2 * number


@shared_task
def note(text):
    Note.objects.create(text=text)
"""
FROM_THE_TEST = 'CELERY_RESULT_BACKEND = os.environ["OPSQ_BROKER_URL"]\n'
EVERY_SECOND = """
import django
django.setup()
from opsq.contrib.django.models import IntervalSchedule, PeriodicTask
often = IntervalSchedule.objects.create(every=1, period="seconds")
PeriodicTask.objects.create(name="often", task="shop.tasks.note", interval=often, args='["from beat"]')
"""


@pytest.fixture
def shop(shop: Supervised) -> Supervised:
    """A project with nothing of ours but its settings; what `up` keeps lies in the test's folder."""
    shop.environment = {
        "OPSQ_STATE_DIR": str(shop.state.root),
        "PYTHONPATH": str(shop.folder),
        "DJANGO_SETTINGS_MODULE": None,
    }
    write(shop, 'CELERY_BEAT_SCHEDULER = "django"\n')
    return shop


def write(shop: Supervised, settings: str) -> None:
    own = FILES["proj/settings.py"].replace(FROM_THE_TEST, settings)
    django_project.write(shop.folder, {**FILES, "proj/settings.py": own, "shop/tasks.py": TASKS})


def python(shop: Supervised, *argv: str, **environment: str) -> str:
    env = shop.spawner.environment({**shop.environment, **environment})
    done = subprocess.run([sys.executable, *argv], cwd=shop.folder, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_up_runs_the_project_with_a_private_redis_and_its_schedule(
    shop: Supervised, wait_for: Callable[..., Any]
) -> None:
    for words in (["makemigrations", "shop"], ["migrate"]):
        python(shop, "manage.py", *words)
    python(shop, "-c", EVERY_SECOND, DJANGO_SETTINGS_MODULE="proj.settings")
    below = Supervised(shop.folder / "shop" / "migrations", shop.spawner, wait_for, shop.environment)
    said = below.opsq("up").stderr
    assert "running: redis, worker, beat, monitor, agent (app proj)" in said
    assert json.loads(below.opsq("run", "task", "shop.tasks.double", "[21]", "--wait").stdout) == 42
    notes = "import django; django.setup(); from shop.models import Note; print(Note.objects.count())"
    wait_for(lambda: int(python(shop, "-c", notes, DJANGO_SETTINGS_MODULE="proj.settings")) > 1, 30, "beat sends")
    assert "often" in below.opsq("schedule").stdout
    assert "shop.tasks.double" in below.opsq("logs", "worker").stdout
    assert {row["name"]: row["state"] for row in json.loads(below.opsq("status", "--json").stdout)["programs"]} == (
        dict.fromkeys(("redis", "worker", "beat", "monitor", "agent"), "RUNNING")
    )
    below.opsq("down")
    assert not shop.leftovers()


def test_up_takes_the_broker_of_the_settings(shop: Supervised, redis_url: str) -> None:
    write(shop, f'CELERY_BROKER_URL = CELERY_RESULT_BACKEND = "{redis_url}"\n')
    assert "running: worker, monitor (app proj)" in shop.opsq("up", "worker", "monitor").stderr
    assert "redis" not in shop.programs()
    answer = shop.opsq("run", "task", "shop.tasks.double", "[4]", "--wait", "--broker", redis_url)
    assert json.loads(answer.stdout) == 8
    shop.opsq("down")


def test_all_folders_of_a_project_mean_the_same_state_directory(shop: Supervised, tmp_path: Path) -> None:
    places = [shop.folder, shop.folder / "shop", shop.folder / "shop" / "migrations"]
    found = {statedir.find(None, {}, place).root for place in places}
    assert len(found) == 1
    assert statedir.find(None, {}, tmp_path).root not in found
    below = shop.folder / "shop" / "opsq.toml"
    below.write_text("")
    assert statedir.find(None, {}, shop.folder / "shop" / "migrations").root == below.parent.resolve() / ".opsq"


@pytest.mark.parametrize(
    ("change", "environment", "says"),
    [
        ({}, {"DJANGO_SETTINGS_MODULE": "proj.setings"}, "'proj.setings' (DJANGO_SETTINGS_MODULE): No module"),
        ({"proj/settings.py": "DEBUG = (\n"}, {}, "'(' was never closed (proj/settings.py, line 1)"),
        ({"proj/settings.py": "INSTALLED_APPS = ['shp']\n"}, {}, "opsq: cannot set up Django: No module named 'shp'"),
        ({"shop/tasks.py": "def charge(:\n"}, {}, "tasks.py, line 1"),
        ({"shop/tasks.py": "from opsq import sharedtask\n"}, {}, "cannot import name 'sharedtask'"),
    ],
)
def test_a_mistake_is_one_line(
    shop: Supervised, change: dict[str, str], environment: dict[str, str], says: str
) -> None:
    django_project.write(shop.folder, change)
    shop.environment |= environment
    said = shop.opsq("tasks", code=2).stderr
    assert says in said
    assert sum(line.startswith("opsq: ") for line in said.splitlines()) == 1
    assert len(said.splitlines()) <= 2
