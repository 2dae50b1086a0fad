"""A private PostgreSQL server over TCP and a Unix socket, nothing kept; a fresh database for whoever asks."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from .redis_server import die_with_parent, free_port

#: The owner of everything on the server.
USER = "opsq"
#: Whom the server runs as when the tests are root's: it refuses root.
UNPRIVILEGED = ("postgres", "nobody")
#: Nothing has to outlive the server, and many tests may have connections.
OPTIONS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB", "max_connections=200")


@dataclass(frozen=True)
class Database:
    """One database of a server."""

    server: PostgresServer
    name: str

    def settings(self, **more: Any) -> dict[str, Any]:
        """What stands in Django's DATABASES (over TCP); `more` is laid over it."""
        found = {"ENGINE": "django.db.backends.postgresql", "NAME": self.name, "USER": USER}
        return {**found, "HOST": "127.0.0.1", "PORT": self.server.port, **more}

    def connect(self) -> psycopg.Connection[Any]:
        """A connection that commits each statement; close it, or use it with `with`."""
        return self.server.connect(self.name)

    def cut_off(self) -> None:
        """End all connections to it, as an administrator or a proxy does."""
        with self.server.connect("postgres") as admin:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self.name])

    @contextmanager
    def away(self) -> Iterator[None]:
        """Meanwhile nobody is connected to it, and nobody can be."""
        with self.server.connect("postgres") as admin:
            admin.execute(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS false")
        self.cut_off()
        try:
            yield
        finally:
            with self.server.connect("postgres") as admin:
                admin.execute(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS true")

    def sessions(self) -> set[int]:
        """The server's processes of all connections to this database."""
        with self.server.connect("postgres") as admin:
            rows = admin.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s", [self.name]).fetchall()
        return {pid for (pid,) in rows}


@dataclass(frozen=True)
class PostgresServer:
    """One server and how it is reached."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    def connect(self, name: str) -> psycopg.Connection[Any]:
        """A connection over the Unix socket that commits each statement."""
        return psycopg.connect(host=str(self.folder), port=self.port, user=USER, dbname=name, autocommit=True)

    @contextmanager
    def database(self) -> Iterator[Database]:
        """An empty database; in the end it goes, whoever is still connected."""
        made = Database(self, f"test_{uuid4().hex[:12]}")
        with self.connect("postgres") as admin:
            admin.execute(f"CREATE DATABASE {made.name}")
        try:
            yield made
        finally:
            with self.connect("postgres") as admin:
                admin.execute(f"DROP DATABASE {made.name} WITH (FORCE)")

    def answers(self) -> bool:
        """Whether it has come up; False as soon as it has ended instead."""
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            with suppress(psycopg.OperationalError), self.connect("postgres"):
                return True
            time.sleep(0.01)
        return False


def programs() -> Path:
    """The folder of the server's programs, on PATH or where Debian has them; without one the test is skipped,
    but not in CI.
    """
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve()] if on_path else list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        (pytest.fail if "CI" in os.environ else pytest.skip)("these tests need PostgreSQL (Debian: postgresql)")
    return max(found, key=lambda path: (path.parent.parent.name.zfill(3), path)).parent


@contextmanager
def running() -> Iterator[PostgresServer]:
    """A server that ends with the block, or with this process; on a free port."""
    found = programs()
    folder = Path(tempfile.mkdtemp(prefix="opsq-postgres-"))
    try:
        identity = _identity(folder)
        data = folder / "data"
        argv = [found / "initdb", "-D", data, "-U", USER, "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, **identity)
        assert done.returncode == 0, done.stdout + done.stderr
        for _ in range(5):  # another process may have taken the port in between
            server = _start(found, folder, free_port(), identity)
            if server.answers():
                break
            _end(server)
        else:
            raise RuntimeError(f"PostgreSQL does not start: {(folder / 'postgres.log').read_text()}")
        try:
            yield server
        finally:
            _end(server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _identity(folder: Path) -> dict[str, Any]:
    """As whom the server's programs are started; the folder is made that user's."""
    if os.geteuid() != 0:
        return {"cwd": folder}
    for name in UNPRIVILEGED:
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            break
    else:
        raise RuntimeError(f"PostgreSQL refuses root, and there is no user {' or '.join(UNPRIVILEGED)}")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"cwd": folder, "user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _start(found: Path, folder: Path, port: int, identity: dict[str, Any]) -> PostgresServer:
    argv = [found / "postgres", "-D", folder / "data", "-h", "127.0.0.1", "-p", str(port), "-k", folder]
    argv += [word for option in OPTIONS for word in ("-c", option)]
    # Its immediate shutdown: kill -9 would leave its workers and its piece of shared memory to themselves.
    ends = partial(die_with_parent, signal.SIGQUIT)
    with (folder / "postgres.log").open("ab") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=ends, **identity)
    return PostgresServer(process, port, folder)


def _end(server: PostgresServer) -> None:
    """At once, as nothing is kept; it ends its own processes."""
    with suppress(ProcessLookupError):
        server.process.send_signal(signal.SIGQUIT)
    try:
        server.process.wait(30)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
