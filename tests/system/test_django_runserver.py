"""Development: runserver reloads as it does without us, and workers beside it take the new code too."""

from __future__ import annotations

import json
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import django_project
from support.django_project import DjangoLab
from support.supervised import Supervised

TASKS = """
from opsq import shared_task

VERSION = {version}


@shared_task
def version():
    return VERSION
"""
VIEWS = """
import os
import threading

import psutil
from django.http import JsonResponse
from django.urls import path

from shop.tasks import VERSION, version


def look(request):
    return JsonResponse({
        "version": VERSION,
        "of the worker": version.delay().get(timeout=20) if "ask" in request.GET else None,
        "pid": os.getpid(),
        "threads": [thread.name for thread in threading.enumerate()],
        "children": [child.cmdline() for child in psutil.Process().children()],
    })


urlpatterns = [path("look", look)]
"""


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DjangoLab]:
    settings = django_project.FILES["proj/settings.py"] + 'DEBUG = True\nALLOWED_HOSTS = ["*"]\n'
    files = {"proj/urls.py": VIEWS, "proj/settings.py": settings}
    with django_project.opened(tmp_path_factory, TASKS.format(version=1), files) as project:
        yield project


class Site:
    """`manage.py runserver` with its autoreload."""

    def __init__(self, project: DjangoLab) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        argv = [sys.executable, "manage.py", "runserver", str(self.port)]
        self.running = project.lab.spawn(argv, env=project.lab.environment, cwd=project.folder)
        self.project = project
        project.lab.wait_for(lambda: self.look() is not None, "it serves", 30)

    def look(self, query: str = "") -> Any:
        """What the view says; None while the server is being replaced."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/look?{query}", timeout=30) as answer:
                return json.load(answer)
        except OSError:
            return None

    def until(self, version: int) -> Any:
        """What it says once it has this version."""
        return self.project.lab.wait_for(
            lambda: (seen := self.look()) and seen["version"] == version and seen, f"version {version} is served", 30
        )

    def until_the_worker_has(self, version: int) -> None:
        has = f"the worker has version {version}"
        self.project.lab.wait_for(lambda: self.look("ask")["of the worker"] == version, has, 30)


def change(project: DjangoLab, version: int) -> None:
    (project.folder / "shop" / "tasks.py").write_text(TASKS.format(version=version) + "\n" * version)


def test_runserver_and_a_worker_beside_it_both_take_new_code(project: DjangoLab) -> None:
    site = Site(project)
    worker = project.lab.worker("-c", "1", "--reload")
    first = site.look("ask")
    assert (first["version"], first["of the worker"]) == (1, 1)
    for version in (2, 3):
        change(project, version)
        served = site.until(version)
        assert served["pid"] != first["pid"]
        site.until_the_worker_has(version)
    assert worker.alive()
    assert site.running.alive()
    site.running.stop()


def test_the_app_starts_neither_threads_nor_processes_in_runserver(project: DjangoLab) -> None:
    project.lab.worker("-c", "1")
    site = Site(project)
    before = site.look()
    site.look("ask")
    after = site.look()
    assert before["children"] == after["children"] == []
    own = ("MainThread", "django-main-thread")
    others = [name for name in (*before["threads"], *after["threads"]) if name not in own]
    assert all("process_request_thread" in name for name in others), others
    site.running.stop()


def test_up_reload_has_the_workers_of_a_project_follow_its_files(
    shop: Supervised, wait_for: Callable[..., Any]
) -> None:
    code = "from opsq import App\n\napp = App('proj')\n\n\n@app.task\ndef version():\n    return {version}\n"
    path = shop.folder / "proj.py"
    path.write_text(code.format(version=1))
    shop.environment = {"OPSQ_STATE_DIR": str(shop.state.root)}
    shop.opsq("-A", "proj", "up", "--reload", "worker")

    def answer() -> int:
        return int(shop.opsq("-A", "proj", "run", "task", "proj.version", "--wait", "--timeout", "20").stdout)

    assert answer() == 1
    path.write_text(code.format(version=22))
    wait_for(lambda: answer() == 22, 30, "new code is run")
    shop.opsq("down")
