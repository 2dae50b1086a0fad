"""What all tests share: a private Redis for each test process, processes that always end, and waiting for conditions.

Every test gets a clean database, and fails if it leaves a key behind that the table of keys does not know.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # for `support`, the helpers that are no fixtures
from support import celery_venv, key_audit, postgres, redis_server
from support.postgres import Database, PostgresServer
from support.processes import Spawner, is_setting
from support.redis_server import RedisServer

from opsq.datastore.redis_py import Client

settings.register_profile(
    "opsq", deadline=None, database=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("opsq")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if is_setting(name)]:
        monkeypatch.delenv(name)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that returns a TCP port which nobody uses."""
    return redis_server.free_port


@pytest.fixture(scope="session", name="redis_server")
def _redis_server() -> Iterator[RedisServer]:
    """The server of this test process; ask for `redis_url` to have it clean."""
    with redis_server.running() as server:
        yield server


@pytest.fixture
def foreign_keys() -> Sequence[str]:
    """Regular expressions of keys that others leave behind; the interop tests override it with Celery's."""
    return ()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The PostgreSQL of this test process, started for the first test that asks; `with server.database() as made:`."""
    with postgres.running() as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[Database]:
    """An empty database of it."""
    with postgres_server.database() as made:
        yield made


@pytest.fixture
def redis_url(redis_server: RedisServer, foreign_keys: Sequence[str]) -> Iterator[str]:
    """The URL of an empty database (TCP). At the end every key must be one that opsq knows, bounded as it says."""
    with redis_server.client() as client:
        client.flushall()
        yield redis_server.url()
    problems = key_audit.of_server(redis_server, foreign_keys)
    assert not problems, "keys left behind: " + "; ".join(problems)


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the clean database; bytes in and out."""
    with Client.from_url(redis_url) as client:
        yield client


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


@pytest.fixture(scope="session")
def celery_python() -> Path:
    """A Python with the real Celery, in a virtual environment without opsq."""
    return celery_venv.python()
