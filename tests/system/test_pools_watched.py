"""What workers whose process runs many tasks are told by command, and what is told of them."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Iterator

import pytest
from support import lab as labs
from support import monitored
from support.lab import OPSQ, Lab
from support.processes import Running

from opsq.broker import audit

POOLS = ("threads", "asyncio", "gevent", "eventlet")

TASKS = """
import asyncio

other = Celery("other")  # the current app, which is not the worker's


@app.task
def wait(text, path):
    mark("begin", text)
    while not (os.path.exists(path) or os.path.exists("end")):
        time.sleep(0.01)


@app.task
async def async_wait(text, path):
    mark("begin", text)
    while not (os.path.exists(path) or os.path.exists("end")):
        await asyncio.sleep(0.01)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        yield lab


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest) -> str:
    pool: str = request.param
    if pool in ("gevent", "eventlet") and importlib.util.find_spec(pool) is None:
        pytest.skip(f"{pool} is not installed")
    return pool


@pytest.fixture(autouse=True)
def ended(lab: Lab) -> Iterator[None]:
    """No test leaves a worker to the next one."""
    yield
    (lab.folder / "end").touch()
    lab.end_workers()
    (lab.folder / "end").unlink()


def start(lab: Lab, pool: str, size: int) -> Running:
    return lab.worker("-P", pool, "-c", str(size), "-n", f"{pool}@here", name=f"{pool}-{labs.new_id()[:8]}")


def fill(lab: Lab, pool: str, count: int, path: str) -> list[str]:
    """So many tasks that run until there is a file; they have begun."""
    task = "async_wait" if pool == "asyncio" else "wait"
    texts = [f"{pool} {labs.new_id()}" for _ in range(count)]
    for text in texts:
        lab.send(task, text, path)
    for text in texts:
        lab.wait_mark("begin", text)
    return texts


def test_a_time_limit_that_is_set_by_command_holds_for_all_later_runs(lab: Lab, pool: str) -> None:
    running, task = start(lab, pool, 5), "async_wait" if pool == "asyncio" else "wait"
    (told,) = lab.app.control.time_limit(f"proj.{task}", soft=30, hard=0.3, reply=True, limit=1, timeout=10)
    assert told == {f"{pool}@here": {"ok": "time limits set successfully"}}
    record = lab.result(lab.send(task, "limited", str(lab.folder / "never")), "FAILURE")
    assert record["result"]["exc_type"] == "TimeLimitExceeded"
    lab.app.control.time_limit(f"proj.{task}", soft=0.2, hard=30, reply=True, limit=1, timeout=10)
    record = lab.result(lab.send(task, "limited", str(lab.folder / "never")), "FAILURE")
    assert record["result"]["exc_type"] == "SoftTimeLimitExceeded"
    assert running.stop() == 0


def test_each_task_that_runs_counts_as_busy(lab: Lab) -> None:
    running, go = start(lab, "asyncio", 3), lab.folder / "go"
    page = monitored.start(lab.spawn, lab.url)
    fill(lab, "asyncio", 3, str(go))
    waits = lab.send("add", 1, 2)

    def says(*words: str) -> str:
        environment = lab.spawn.environment(lab.environment)
        line = [*OPSQ, "-A", "proj", *words]
        return subprocess.run(line, cwd=lab.folder, env=environment, capture_output=True, text=True).stdout

    lab.wait_for(lambda: "3/3" in says("workers"), "the list says so", 20)
    assert "1 child takes from the queue, 3 busy" in says("why", waits)
    lab.wait_for(lambda: [w["busy"] for w in page.ask("/api/workers").json()["workers"]] == [3], "the monitor, too")
    go.touch()
    assert lab.value(waits) == 3
    assert running.stop() == 0


def test_a_worker_that_is_full_asks_for_nothing(lab: Lab, pool: str) -> None:
    running, go = start(lab, pool, 4), lab.folder / f"go-{pool}"
    fill(lab, pool, 4, str(go))
    taken = books(lab).taken
    waiting = [lab.send("add", number, 1) for number in range(40)]
    for _ in range(10):  # each takes the worker a while, in which it could have taken what waits
        assert lab.app.control.ping(timeout=10, limit=1)
    assert (books(lab).taken, lab.depth()) == (taken, 40)
    go.touch()
    assert [lab.value(task_id) for task_id in waiting] == [number + 1 for number in range(40)]
    assert running.stop() == 0


def books(lab: Lab) -> audit.Balance:
    (balance,) = audit.balances(lab.app.broker, ["celery"])
    return balance
