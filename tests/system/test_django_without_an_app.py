"""A Django project that makes no app itself (it has no `celery.py`): one is made of its settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import django_world
from support.django_world import SETTINGS, World

PROJECT = f"""{SETTINGS}
INSTALLED_APPS = ["opsq.contrib.django", "django_tasks", "shop"]
TASKS = {{"default": {{"BACKEND": "opsq.contrib.django.tasks.OpsqBackend", "QUEUES": []}}}}
"""

TASKS = """
from django.conf import settings
from django_tasks import task

from opsq import shared_task


@task
def name_of_settings():
    return settings.SETTINGS_MODULE


@shared_task
def shared_name_of_settings():
    return settings.SETTINGS_MODULE
"""

#: A call of Django's interface; what it returned.
ENQUEUE = """
import time
from shop.tasks import name_of_settings

sent = name_of_settings.enqueue()
until = time.time() + 30
while not sent.is_finished and time.time() < until:
    time.sleep(0.01)
    sent.refresh()
answer = sent.return_value
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    named = 'from .settings import *\nCELERY_BROKER_URL = os.environ["BROKER"]\n'
    files = {"proj/settings.py": PROJECT, "proj/named.py": named, "shop/tasks.py": TASKS}
    with django_world.opened(tmp_path_factory, "5.2", files) as world:
        yield world


def test_up_needs_nothing_but_the_settings(world: World, tmp_path: Path) -> None:
    """No broker is configured, no app is named: the private Redis has the results too."""
    how = {"OPSQ_STATE_DIR": str(tmp_path / "s")}
    said = world.opsq("up", "worker", **how)
    try:
        assert "running: redis, worker (app opsq.contrib.django)" in said
        said = world.manage("shell", "-c", f"{ENQUEUE}\nprint(answer)", **how)
        assert said.splitlines()[-1] == "proj.settings"
    finally:
        world.opsq("down", **how)


def test_results_are_in_the_broker_and_shared_tasks_reach_the_same_worker(world: World, tmp_path: Path) -> None:
    """`manage.py` says which settings, from any folder."""
    manage = [world.python, world.folder / "manage.py", "opsq", "worker", "-l", "info", "-c", "1"]
    worker = world.spawn([*manage, "--settings=proj.named"], env=world.environment, cwd=tmp_path)
    world.wait_for(lambda: " ready." in worker.output() or not worker.alive(), "it is ready")
    other = "from shop import tasks\nother = tasks.shared_name_of_settings.delay()"
    both = f"{other}\n{ENQUEUE}\nprint(answer, other.get(timeout=30))"
    said = world.manage("shell", "-c", both, folder=tmp_path, DJANGO_SETTINGS_MODULE="proj.named")
    assert said.splitlines()[-1] == "proj.named proj.named", worker.report()
    assert worker.stop() == 0, worker.report()


def test_a_folder_without_a_project_is_told_so(world: World, tmp_path: Path) -> None:
    said = world.opsq("-A", "opsq.contrib.django", "worker", folder=tmp_path, code=2)
    assert "cannot find the settings of a Django project: DJANGO_SETTINGS_MODULE is not set" in said
