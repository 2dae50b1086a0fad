"""A Django project that keeps its results in its database or cache: driven by opsq, or by the real Celery."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .django_beat import DjangoProject
from .processes import Running

SETTINGS = """
if "KEPT" in os.environ:
    DATABASES["default"]["CONN_MAX_AGE"] = None
CELERY_RESULT_BACKEND = os.environ.get("RESULTS", "django-db")
CELERY_RESULT_EXTENDED = "PLAIN" not in os.environ
CELERY_RESULT_SERIALIZER = os.environ.get("SERIALIZER", "json")
CELERY_ACCEPT_CONTENT = ["json", CELERY_RESULT_SERIALIZER]
CELERY_RESULT_EXPIRES = 3600
CELERY_CACHE_BACKEND = os.environ.get("CACHE")
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
FILES = os.environ["PLACE"] + ".cache"
CACHES = {
    name: {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": FILES + name}
    for name in ("default", "second")
}
"""
TASKS = """
import time


@app.task(name="proj.tasks.add")
def add(x, y=0):
    return x + y


@app.task(name="proj.tasks.total")
def total(values):
    return sum(values)


@app.task(name="proj.tasks.fail")
def fail(text):
    raise ValueError(text)


@app.task(name="proj.tasks.quiet", ignore_result=True)
def quiet(x):
    return x


@app.task(bind=True, name="proj.tasks.family")
def family(self):
    self.request.meta = {"note": "by the program"}
    add.apply_async((1, 2), task_id=self.request.id + "-child")
    return "parent"


def mark(what):
    fd = os.open(os.environ["PLACE"] + ".marks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, (what + "\\n").encode())
    os.close(fd)


def wait_for(name):
    until = time.monotonic() + 20
    while not os.path.exists(os.environ["PLACE"] + "." + name) and time.monotonic() < until:
        time.sleep(0.005)


@app.task(bind=True, name="proj.tasks.stages", track_started=True)
def stages(self):
    mark("began")
    wait_for("go")
    self.update_state(state="HALF", meta={"done": 50})
    mark("half")
    wait_for("on")
    return "whole"


@app.task(name="proj.tasks.worded")
def worded(text):
    mark(text)
    return text


@app.task(bind=True, acks_late=True, name="proj.tasks.late")
def late(self, number):
    mark(str(number))
    return number
"""


@dataclass
class ResultsProject(DjangoProject):
    """The project and its workers."""

    #: More of the environment.
    more: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where names of files begin that tasks write and wait for."""
        return str(self.folder / "files")

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "PLACE": self.place, **self.more}

    def write(self) -> ResultsProject:
        """Write the project's files."""
        super().write()
        package = self.folder / "proj"
        with (package / "settings.py").open("a") as settings:
            settings.write(SETTINGS)
        with (package / "celery.py").open("a") as tasks:
            tasks.write(TASKS)
        return self

    def worker(self, *words: str, program: str = "opsq", ready: bool = True) -> Running:
        """A worker in the foreground; ready means that its children are at work."""
        argv = [self.python, "-m", program, "-A", "proj", "worker", "-l", "info", "-c", "1", *words]
        running = self.spawn(argv, env=self.environment, cwd=self.folder)
        if ready:
            self.wait_for(lambda: " ready." in running.output() or not running.alive(), 60, "the worker is ready")
            if not running.alive():
                pytest.fail(running.report())
        return running

    def ask(self, source: str) -> Any:
        """Run statements with the project's tasks at hand; what they put into `answer`."""
        return self.do("from proj.celery import *\n" + source)

    def found(self, task_id: str) -> dict[str, Any] | None:
        """The row of a task."""
        rows: list[dict[str, Any]] = self.rows(task_id)
        return rows[0] if rows else None

    def rows(self, *ids: str) -> list[dict[str, Any]]:
        """The rows of tasks (of all if none is named), in the order of their making."""
        chosen = f"filter(task_id__in={list(ids)!r})" if ids else "all()"
        found: list[dict[str, Any]] = self.do(
            f"answer = list(model('TaskResult').objects.{chosen}.order_by('pk').values())"
        )
        return found

    def let(self, name: str) -> None:
        """Let a task go on that waits for this word."""
        Path(f"{self.place}.{name}").touch()

    def marks(self) -> list[str]:
        """What tasks have written down."""
        try:
            return Path(f"{self.place}.marks").read_text().splitlines()
        except FileNotFoundError:
            return []

    def value(self, call: str, timeout_s: float = 30) -> Any:
        """What a call comes to: an expression that sends it."""
        return self.ask(f"answer = ({call}).get(timeout={timeout_s})")
