"""The example project of docs/examples/django, and the Celery project that it was: the diff in its README undone."""

from __future__ import annotations

import difflib
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import documents
from .postgres import Database
from .processes import Running, Spawner
from .redis_server import free_port

FOLDER = documents.ROOT / "docs" / "examples" / "django"
_KEPT = ("*.py", "*.txt", "*.html", "*.conf")


def copied(folder: Path) -> Path:
    """The example in a folder of its own."""
    return Path(shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__", "db.sqlite3*", ".opsq")))


def original(folder: Path) -> Path:
    """The Celery project in a folder of its own. What the diff says must be in the example, each place once."""
    for part in re.split(r"^(?=--- )", shown_diff(), flags=re.MULTILINE)[1:]:
        head, *hunks = re.split(r"^@@.*\n", part, flags=re.MULTILINE)
        path = (folder if folder.exists() else copied(folder)) / head.rpartition("+++ b/")[2].strip()
        text = path.read_text()
        for hunk in hunks:
            lines = [line if line.strip() else " \n" for line in hunk.splitlines(keepends=True)]
            after = "".join(line[1:] for line in lines if not line.startswith("-"))
            assert text.count(after) == 1, f"{path.name} has not, or more than once:\n{after}"
            text = text.replace(after, "".join(line[1:] for line in lines if not line.startswith("+")))
        path.write_text(text)
    return folder


def shown_diff() -> str:
    """The diff that the README shows."""
    (found,) = documents.blocks(FOLDER / "README.md", "diff")
    return found


def differences(before: Path, after: Path) -> dict[str, str]:
    """The unified diff of each file that is not the same in two folders, by its path in them."""
    names = {
        str(path.relative_to(folder)) for folder in (before, after) for kind in _KEPT for path in folder.rglob(kind)
    }
    found = {}
    for name in sorted(names):
        lines = [(folder / name).read_text().splitlines(keepends=True) for folder in (before, after)]
        if diff := "".join(difflib.unified_diff(*lines, f"a/{name}", f"b/{name}")):
            found[name] = re.sub(r"[ \t]+$", "", diff, flags=re.MULTILINE)
    return found


#: The pages, asked as a browser asks.
_CLIENT = """
from django.test import Client
from shop.models import Order
from shop.views import AsyncResult
browser = Client()
def ask(method, *words):
    answer = method(*words, HTTP_HOST="localhost")
    assert answer.status_code == 200, answer.content
    return answer.json()
def ordered(item):
    made = ask(browser.post, "/orders", {"item": item})
    AsyncResult(Order.objects.get(pk=made["pk"]).task_id).get(timeout=40)
    return {order.item: ask(browser.get, f"/orders/{order.pk}") for order in Order.objects.all()}

"""


def packed(*items: str) -> dict[str, dict[str, Any]]:
    """What the page is told of these when they are packed."""
    return {item: {"state": "SUCCESS", "told": f"3 of {item} are packed", "ready": True} for item in items}


@dataclass
class Example:
    """A copy of it at work, in opsq's environment or, with another `python`, in Celery's."""

    folder: Path
    spawn: Spawner
    url: str
    python: str = sys.executable
    #: The Django app of the schedule's models.
    label: str = "opsq"
    #: None: the SQLite of the example.
    database: Database | None = None

    def bring(self, source: Path) -> None:
        """Lay the files of one version of the project over those that are there; the data stay."""
        shutil.copytree(source, self.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        if self.database is not None:
            with (self.folder / "proj" / "settings.py").open("a") as settings:
                settings.write(f"DATABASES = {{'default': {self.database.settings()!r}}}\n")

    @property
    def environment(self) -> dict[str, str]:
        return self.spawn.environment({"CELERY_BROKER_URL": self.url, "PYTHONPATH": str(self.folder)})

    def manage(self, *words: str, **more: str) -> str:
        """A command of `manage.py` to its end."""
        return self._run("manage.py", *words, **more)

    def do(self, source: str) -> Any:
        """Run statements in the project; what they put into `answer`."""
        head = "import os, django, json\nos.environ['DJANGO_SETTINGS_MODULE'] = 'proj.settings'\n"
        done = self._run("-c", f"{head}django.setup()\nanswer = None\n{source}\nprint(json.dumps(answer, default=str))")
        return json.loads(done.splitlines()[-1])

    def ordered(self, item: str) -> dict[str, dict[str, Any]]:
        """Order something on the page and wait for its task; what the page is told of all orders there are."""
        told: dict[str, dict[str, Any]] = self.do(f"{_CLIENT}\nanswer = ordered({item!r})")
        return told

    def schedule(self, name: str, task: str, seconds: int) -> None:
        """Make an entry as the admin does."""
        self.do(
            f"from django.apps import apps\nmodel = lambda name: apps.get_model({self.label!r}, name)\n"
            f"every = model('IntervalSchedule').objects.get_or_create(every={seconds}, period='seconds')[0]\n"
            f"model('PeriodicTask').objects.create(name={name!r}, task={task!r}, interval=every)"
        )

    def runs(self, name: str) -> int:
        """How often an entry has run, as its row says."""
        count: int = self.do(
            "from django.apps import apps\n"
            f"answer = apps.get_model({self.label!r}, 'PeriodicTask').objects.get(name={name!r}).total_run_count"
        )
        return count

    def results(self, task: str) -> int:
        """How many rows of the table of results tell that this task has succeeded."""
        query = "SELECT count(*) FROM django_celery_results_taskresult WHERE task_name = %s AND status = 'SUCCESS'"
        source = f"cursor = connection.cursor()\ncursor.execute({query!r}, [{task!r}])\nanswer = cursor.fetchone()[0]"
        count: int = self.do(f"from django.db import connection\n{source}")
        return count

    def _run(self, *words: str, **more: str) -> str:
        argv, env = [self.python, *words], {**self.environment, **more}
        done = subprocess.run(argv, cwd=self.folder, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def start(self, *words: str, ready: str) -> Running:
        """A program of the project, when it has said that it is ready."""
        running = self.spawn([self.python, *words], env=self.environment, cwd=self.folder)
        until = time.monotonic() + 60
        while ready not in running.output():
            if not running.alive() or time.monotonic() > until:
                pytest.fail(running.report())
            time.sleep(0.01)
        return running

    def serve(self) -> str:
        """Its pages on a free port: their address."""
        port = free_port()
        self.start("manage.py", "runserver", "--noreload", f"127.0.0.1:{port}", ready="Quit the server")
        return f"http://127.0.0.1:{port}"
