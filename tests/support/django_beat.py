"""A Django project with entries in its database: driven by opsq, or by the real Celery where that is installed."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from .postgres import Database
from .processes import Running, Spawner

SETTINGS = """
import json
import os
SECRET_KEY = "not secret"
DEBUG = True
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = [
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.messages", *os.environ["APPS"].split(),
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]},
}]
ROOT_URLCONF = "proj.urls"
DATABASES = {"default": json.loads(os.environ["DATABASE"])}
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
CELERY_TIMEZONE = "Europe/Berlin"
CELERY_BROKER_URL = os.environ["OPSQ_BROKER_URL"]
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_BEAT_SCHEDULE = {
    "of the code": {"task": "proj.tasks.who", "schedule": 3600, "options": {"queue": "code", "expires": 60}},
}
"""
CELERY = """
import os
try:
    from opsq import Celery
except ImportError:
    from celery import Celery
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
app = Celery("proj")
app.config_from_object("django.conf:settings", namespace="CELERY")


@app.task(bind=True, name="proj.tasks.who")
def who(self, *args, **kwargs):
    return self.request.periodic_task_name
"""
URLS = """
from django.contrib import admin
from django.urls import path
urlpatterns = [path("admin/", admin.site.urls)]
"""
#: Before what a test runs in the project.
HEAD = """
import json, sys
from datetime import datetime, timedelta, timezone as zones
import django
django.setup()
from django.apps import apps
from django.utils import timezone
def model(name):
    return apps.get_model("%s", name)
def every(seconds, name, **more):
    interval = model("IntervalSchedule").objects.get_or_create(every=seconds, period="seconds")[0]
    return model("PeriodicTask").objects.create(name=name, task="proj.tasks.who", interval=interval, **more)
def now():
    return timezone.now()
"""


@dataclass
class DjangoProject:
    """The project; `python` runs it, with `apps` installed, whose models are those of `label`."""

    folder: Path
    spawn: Spawner
    url: str
    client: redis.Redis
    wait_for: Callable[..., Any]
    python: str = sys.executable
    apps: str = "opsq.contrib.django"
    label: str = "opsq"
    #: None: SQLite in the project's folder.
    database: Database | None = None
    #: How long is waited for what another one has locked.
    patience_s: float = 20

    def write(self) -> DjangoProject:
        """Write the project's files."""
        package = self.folder / "proj"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("from .celery import app\n")
        (package / "settings.py").write_text(SETTINGS)
        (package / "celery.py").write_text(CELERY)
        (package / "urls.py").write_text(URLS)
        return self

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self.spawn.environment({"OPSQ_BROKER_URL": self.url, "APPS": self.apps}),
            "DATABASE": json.dumps(self._database()),
            "DJANGO_SETTINGS_MODULE": "proj.settings",
            "PYTHONPATH": str(self.folder),
        }

    def _database(self) -> dict[str, Any]:
        """What stands in DATABASES."""
        if self.database is not None:
            return self.database.settings(OPTIONS={"options": f"-c lock_timeout={self.patience_s * 1000:.0f}"})
        name = str(self.folder / "db.sqlite3")
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": {"timeout": self.patience_s}}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Meanwhile the entries can be read, and not written."""
        if self.database is not None:
            with self.database.connect() as lock, lock.transaction():
                lock.execute("LOCK TABLE django_celery_beat_periodictask IN EXCLUSIVE MODE")
                yield
            return
        with closing(sqlite3.connect(self.folder / "db.sqlite3", isolation_level=None)) as lite:
            lite.execute("BEGIN IMMEDIATE")
            yield
            lite.execute("ROLLBACK")

    def manage(self, *words: str) -> str:
        """A command of Django to its end."""
        return self._run("-m", "django", *words)

    def do(self, source: str) -> Any:
        """Run statements in the project; what they put into `answer`."""
        done = self._run("-c", f"{HEAD % self.label}\nanswer = None\n{source}\nprint(json.dumps(answer, default=str))")
        return json.loads(done.splitlines()[-1])

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            [self.python, *words], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def fails(self, *words: str) -> str:
        """What a command of Django says that fails."""
        argv = [self.python, "-m", "django", *words]
        done = subprocess.run(argv, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def row(self, name: str) -> dict[str, Any]:
        """An entry's row; {} when there is none."""
        found: dict[str, Any] = self.do(
            f"answer = model('PeriodicTask').objects.filter(name={name!r}).values().first() or {{}}"
        )
        return found

    def beat(self, *words: str, ready: str = "beat: ticking", program: str = "opsq") -> Running:
        """A beat in the foreground."""
        argv = [self.python, "-m", program, "-A", "proj", "beat", "-l", "info", *words]
        running = self.spawn(argv, env=self.environment, cwd=self.folder)
        self.wait_for(lambda: ready in running.output() or not running.alive(), 30, f"the beat says {ready!r}")
        return running

    def schedule(self) -> dict[str, dict[str, Any]]:
        """What `opsq schedule` says, by name."""
        rows = json.loads(self._run("-m", "opsq", "-A", "proj", "schedule", "--json"))["schedule"]
        return {row["name"]: row for row in rows}

    def messages(self, queue: str = "celery") -> list[dict[str, Any]]:
        """All that waits, in the order of sending."""
        found: Any = self.client.lrange(queue, 0, -1)
        return [json.loads(raw) for raw in reversed(found)]

    def sent(self, queue: str = "celery") -> list[str]:
        """The entries of all messages that wait, in order."""
        return [message["headers"]["periodic_task_name"] for message in self.messages(queue)]

    def wait_sent(self, name: str, count: int = 1, queue: str = "celery") -> None:
        """So many messages of an entry."""
        self.wait_for(lambda: self.sent(queue).count(name) >= count, 30, f"{name} is sent {count} times")


def stop_celery(beat: Running) -> None:
    """Stop a beat of Celery's. It forgets a signal that comes in the middle of a send: then another; and it ends with a
    traceback, and 1, when one comes in the middle of a save, since its handler closes the database.
    """
    for _ in range(6):
        beat.send(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            beat.process.wait(5)
            break
    assert beat.wait() in (0, 1)
