"""A Django project under one of several versions of Django: its files, its workers, and a web process of it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from support import django_venv, key_audit, redis_server
from support.django_client import DjangoClient
from support.django_project import FILES, write
from support.processes import Running, Spawner

#: The project's web process, and what its tasks write down: a line each.
SETTINGS = """
import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "only for tests"
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3", "OPTIONS": {"timeout": 30},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""


@dataclass
class World:
    """The project; `interface` is the package of Django's task interface there."""

    version: str
    python: Path
    folder: Path
    spawn: Spawner
    url: str
    redis: redis.Redis = field(repr=False)
    _client: DjangoClient | None = None

    @property
    def interface(self) -> str:
        return "django.tasks" if self.version >= "6.0" else "django_tasks"

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.folder.parent / 'lib'}"
        return {"BROKER": self.url, "PYTHONPATH": path, "MARKS": str(self.folder / "marks")}

    def write(self, files: Mapping[str, str]) -> None:
        """Write files; INTERFACE in them is the package of the interface."""
        write(self.folder, {name: source.replace("INTERFACE", self.interface) for name, source in files.items()})

    def opsq(self, *words: str, folder: Path | None = None, code: int = 0, **more: str) -> str:
        """A command of opsq in the project, to its end; what it says on both channels."""
        return self._run("-m", "opsq", *words, folder=folder, code=code, **more)

    def manage(self, *words: str, folder: Path | None = None, code: int = 0, **more: str) -> str:
        """A command of `manage.py`, to its end; what it says on both channels."""
        return self._run(str(self.folder / "manage.py"), *words, folder=folder, code=code, **more)

    def _run(self, *words: str, folder: Path | None, code: int, **more: str) -> str:
        done = subprocess.run(
            [self.python, *words],
            cwd=folder or self.folder,
            env=self.spawn.environment({**self.environment, **more}),
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def start(self, *words: str, ready: str = " ready.", **more: str) -> Running:
        """A command of opsq in the foreground, until it says that it is ready."""
        argv = [self.python, "-m", "opsq", *words]
        running = self.spawn(argv, env={**self.environment, **more}, cwd=self.folder)
        self.wait_for(lambda: ready in running.output() or not running.alive(), f"{words} says {ready!r}")
        assert running.alive(), running.report()
        return running

    @property
    def client(self) -> DjangoClient:
        """The web process."""
        if self._client is None:
            env = {**self.environment, "DJANGO_SETTINGS_MODULE": "proj.settings"}
            env["PYTHONPATH"] += f":{self.folder}"
            self._client = DjangoClient(self.python, self.folder, self.spawn.environment(env))
        return self._client

    def do(self, source: str, **values: Any) -> Any:
        """Run statements in the web process; what they put into `answer`."""
        return self.client.do(source, **values)

    def wait_for(self, condition: Callable[[], Any], what: str, timeout: float = 30) -> Any:
        """The first true value of the condition."""
        until = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > until:
                pytest.fail(f"not within {timeout} s: {what}\n{self.spawn.report()}")
            time.sleep(0.01)
        return value

    def marks(self) -> list[Any]:
        """What tasks and receivers of signals have written down."""
        path = self.folder / "marks"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


@contextmanager
def opened(factory: pytest.TempPathFactory, version: str, files: Mapping[str, str]) -> Iterator[World]:
    """A project with these files under a version of Django; skipped where no Python that it needs is found."""
    python = django_venv.python(version)
    if python is None:
        oldest = ".".join(map(str, django_venv.VERSIONS[version][1]))
        pytest.skip(f"Django {version} needs Python {oldest}, and none is found here")
    folder = factory.mktemp("django")
    django_venv.link_to_opsq(folder / "lib")
    spawner = Spawner(folder)
    with redis_server.running() as server, server.client() as client:
        world = World(version, python, folder / "project", spawner, server.url(), client)
        world.write({"manage.py": FILES["manage.py"], "proj/__init__.py": "", "shop/__init__.py": "", **files})
        try:
            yield world
            for running in spawner.running:
                if running.alive():
                    assert running.stop() == 0, running.report()
        finally:
            world.close()
            spawner.end_all()
        assert not (problems := key_audit.of_server(server)), problems
