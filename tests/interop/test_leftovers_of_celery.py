"""A real Celery worker is killed with messages in hand: an opsq worker runs them, once their timeout is over."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from support.lab import message, new_id
from support.processes import Running, Spawner

PROJECT = """
import os
import time

from LIBRARY import Celery

app = Celery("proj", broker=os.environ["PROJ_BROKER"], backend=os.environ["PROJ_BROKER"])
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=4, task_acks_late=True)
app.conf.broker_transport_options = {"visibility_timeout": float(os.environ["TIMEOUT"])}


@app.task
def nap(text, seconds):
    with open(os.environ["MARKS"], "a") as marks:
        marks.write(f"{text} LIBRARY {time.time()}\\n")
    time.sleep(seconds.get("LIBRARY", 0))
"""
TIMEOUT_S = 4.0
Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path, spawn: Spawner, celery_python: Path, redis_url: str) -> Iterator[Start]:
    """`start("celery", timeout=3600)`: a worker of that library with that visibility timeout."""

    def run(library: str, timeout: float, *options: str) -> Running:
        folder = tmp_path / library
        folder.mkdir(exist_ok=True)
        (folder / "proj.py").write_text(PROJECT.replace("LIBRARY", library))
        python = celery_python if library == "celery" else Path(sys.executable)
        environment = {"PROJ_BROKER": redis_url, "TIMEOUT": str(timeout), "MARKS": str(tmp_path / "marks")}
        argv = [python, "-m", library, "-A", "proj", "worker", "-c", "1", "-l", "info", "-n", f"{library}@%h", *options]
        worker = spawn(argv, name=library, env=environment, cwd=folder)
        until = time.monotonic() + 30
        while " ready." not in worker.output():
            assert worker.alive(), worker.report()
            assert time.monotonic() < until, worker.report()
            time.sleep(0.01)
        return worker

    return run


def marks(tmp_path: Path) -> list[list[str]]:
    path = tmp_path / "marks"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_a_killed_celery_workers_messages_are_run_by_opsq_and_not_before_the_timeout(
    start: Start, tmp_path: Path, redis_client: redis.Redis, wait_for: Any
) -> None:
    celery = start("celery", 3600)
    ids = [new_id() for _ in range(4)]
    for number, task_id in enumerate(ids):
        redis_client.lpush("celery", message("nap", task_id, (f"n{number}", {"celery": 60})))
    wait_for(lambda: marks(tmp_path) and redis_client.hlen("unacked") == 4, what="Celery has them in hand", timeout=30)
    taken = time.time()
    os.killpg(celery.pid, signal.SIGKILL)
    celery.wait()
    opsq = start("opsq", TIMEOUT_S, "--lease", "1")
    wait_for(lambda: len(marks(tmp_path)) == 5, what="all have run", timeout=30)
    assert [line[:2] for line in marks(tmp_path)] == [["n0", "celery"], *([f"n{n}", "opsq"] for n in range(4))]
    assert float(marks(tmp_path)[1][2]) - taken > TIMEOUT_S - 1.5
    assert not redis_client.exists("unacked", "unacked_index")
    assert "put back 4 messages that a Celery worker had taken" in opsq.output()
    assert opsq.stop() == 0


def test_a_celery_neighbour_puts_nothing_back_that_opsq_holds(
    start: Start, tmp_path: Path, redis_client: redis.Redis, wait_for: Any
) -> None:
    opsq = start("opsq", 3600)
    redis_client.lpush("celery", message("nap", new_id(), ("long", {"opsq": 4})))
    wait_for(lambda: len(marks(tmp_path)) == 1, what="it runs")
    celery = start("celery", 1)
    wait_for(lambda: not list(redis_client.scan_iter("opsq:inflight:*")), what="it has ended", timeout=30)
    assert [line[:2] for line in marks(tmp_path)] == [["long", "opsq"]]
    assert opsq.stop() == 0
    assert celery.stop() == 0
