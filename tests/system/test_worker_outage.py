"""An outage of Redis that is longer than a lease: all leases have run out, and everybody lives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from chaos.arena import Store
from support import worker_project
from support.processes import Spawner
from support.worker_project import Project, all_done

from opsq.protocol import writing

LEASE_S = 3.0
TASK = """

@app.task(acks_late=True)
def until_told(number):
    mark("begin", number)
    while not os.path.exists("told"):
        time.sleep(0.01)
    mark("end", number)
"""


@pytest.fixture
def store(tmp_path: Path, spawn: Spawner) -> Iterator[Store]:
    store = Store(tmp_path / "redis", None, "always")
    yield store
    spawn.end_all()
    store.kill()


def answers(store: Store) -> bool:
    try:
        return store.is_up()
    except (redis.RedisError, OSError):
        return False


def lives(store: Store, node: str) -> bool:
    """Whether the lease of the node's child runs."""
    client = store.client()
    seconds, _micros = client.time()
    ends: Any = client.zrange("opsq:consumers:{celery}", 0, -1, withscores=True)
    return any(name.startswith(node.encode()) and end > seconds * 1000 + 1000 for name, end in ends)


def test_who_is_back_first_takes_nothing_over_from_those_who_come_a_moment_later(
    store: Store, tmp_path: Path, spawn: Spawner, wait_for: Callable[..., Any]
) -> None:
    folder = worker_project.write(tmp_path)
    (folder / "proj.py").write_text((folder / "proj.py").read_text() + TASK)
    project = Project(folder, spawn, f"redis://127.0.0.1:{store.port}/0")
    wait_for(lambda: answers(store), what="Redis answers")

    def worker(name: str) -> Any:
        state = str(folder / name)
        return project.worker("-c", "1", "--lease", str(LEASE_S), "-n", f"{name}@h", OPSQ_STATE_DIR=state)

    late = worker("late")
    raw = writing.build(task="proj.until_told", id="id-1", args=[1], kwargs={}, queue="celery")
    store.client().lpush("celery", raw)
    wait_for(project.running_now, what="it runs")
    first = worker("first")
    slow = psutil.Process(late.pid)
    slow.suspend()
    store.kill()
    time.sleep(LEASE_S + 0.5)
    store.start()
    wait_for(lambda: answers(store), what="Redis answers")
    wait_for(lambda: lives(store, "first@h"), 20, "one is back")
    slow.resume()
    wait_for(lambda: lives(store, "late@h"), 20, "and so is the other")
    (folder / "told").touch()
    wait_for(lambda: all_done(store.client()), 20, "all is done")
    assert [what for what, _number, _pid in project.marks()] == ["begin", "end"]
    assert [late.stop(), first.stop()] == [0, 0]
