"""A Django project as there are many: `proj/celery.py`, an app `shop` with a model and shared tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import lab as labs
from support.lab import Lab
from support.postgres import Database

FILES = {
    "manage.py": """
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
""",
    "proj/__init__.py": """
from .celery import celery as celery_app

__all__ = ("celery_app",)
""",
    "proj/celery.py": """
import os

from opsq import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
celery = Celery("proj")
celery.config_from_object("django.conf:settings", namespace="CELERY")
celery.autodiscover_tasks()
""",
    "proj/database.py": """
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent
DEFAULT = {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "db.sqlite3", "OPTIONS": {"timeout": 30}}
""",
    "proj/settings.py": """
import os

from .database import DEFAULT

SECRET_KEY = "only for tests"
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
LANGUAGE_CODE = "en"
AGE = os.environ.get("CONNECTION_AGE", "0")
DATABASES = {"default": {"CONN_MAX_AGE": None if AGE == "None" else int(AGE), **DEFAULT}}
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "opsq.contrib.django", "shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "proj.urls"
CELERY_RESULT_BACKEND = os.environ["OPSQ_BROKER_URL"]
CELERY_TASK_TRACK_STARTED = False
""",
    "proj/urls.py": "urlpatterns = []\n",
    "shop/__init__.py": "",
    "shop/migrations/__init__.py": "",
    "shop/models.py": """
from django.db import models


class Note(models.Model):
    text = models.CharField(max_length=100)

    class Meta:
        app_label = "shop"
""",
}


class DjangoLab:
    """The project, its workers and its programs; `database` is None where that is SQLite in the project's folder."""

    def __init__(self, lab: Lab, database: Database | None = None) -> None:
        self.lab, self.folder, self.database = lab, lab.folder, database

    def send(self, task: str, *args: Any, **options: Any) -> str:
        """Send a task of the app `shop`."""
        return str(self.lab.app.send_task(f"shop.tasks.{task}", args, **options).id)

    def run(self, task: str, *args: Any, **options: Any) -> Any:
        """Send a task of the app `shop`; what it returned."""
        return self.lab.value(self.send(task, *args, **options))

    def python(self, *argv: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """A program of the project, to its end; in the project's folder, or in another one."""
        known = {name: value for name, value in os.environ.items() if not name.startswith(("OPSQ_", "CELERY_"))}
        env = {**known, **self.lab.environment, **environment}
        argv = (sys.executable, *argv)
        return subprocess.run(
            argv,
            cwd=folder or self.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    def manage(self, *words: str, **environment: str) -> str:
        """What a command of `manage.py` says; it must succeed."""
        done = self.python("manage.py", *words, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def program(self, source: str, **environment: str) -> Any:
        """Run source in the project as a web process would: Django is set up; what it puts into `answer`."""
        head = "import django, json, proj\ndjango.setup()\n"
        done = self.python("-c", f"{head}{source}\nprint(json.dumps(answer))", **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])


def write(folder: Path, files: dict[str, str]) -> None:
    """Write files of a project, and the folders that they are in."""
    for name, source in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source.lstrip())


@contextmanager
def opened(
    factory: pytest.TempPathFactory,
    tasks: str,
    files: Mapping[str, str] | None = None,
    database: Database | None = None,
    **options: Any,
) -> Iterator[DjangoLab]:
    """A project with these tasks in the app `shop`, its tables made; in SQLite unless a database is given.

    `options` are laid over what DATABASES says of that database.
    """
    elsewhere = {} if database is None else {"proj/database.py": f"DEFAULT = {database.settings(**options)!r}\n"}
    with labs.opened(factory, "", "django") as lab:
        (lab.folder / "proj.py").unlink()
        write(lab.folder, {**FILES, **elsewhere, "shop/tasks.py": tasks, **(files or {})})
        made = DjangoLab(lab, database)
        made.manage("makemigrations", "shop")
        made.manage("migrate")
        yield made
