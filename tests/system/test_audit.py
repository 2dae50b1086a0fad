"""`opsq audit`: the books balance whatever is done to tasks and workers; what is missing is named, and ends with 1."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support import lab as labs
from support.lab import OPSQ, Lab

from opsq.datastore import keys

TASKS = """
from opsq.exceptions import Ignore, Reject


@app.task
def boom():
    raise ValueError("boom")


@app.task(bind=True, max_retries=3, default_retry_delay=0.01)
def flaky(self, failures):
    if self.request.retries < failures:
        raise self.retry()


@app.task
def ignore():
    raise Ignore


@app.task
def reject():
    raise Reject("no")


@app.task(bind=True, acks_late=True)
def killed(self, times):
    if (self.request.headers or {}).get("x-opsq-deliveries", 0) < times:
        os.kill(os.getpid(), 9)
"""
Audit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as opened:
        yield opened


@pytest.fixture(scope="module")
def audit(lab: Lab) -> Audit:
    """`audit("--json")`: the command, in the project's folder."""

    def run(*line: str) -> subprocess.CompletedProcess[str]:
        environment = lab.spawn.environment(lab.environment)
        return subprocess.run(
            [*OPSQ, "-A", "proj", "audit", *line], capture_output=True, text=True, cwd=lab.folder, env=environment
        )

    return run


def books(audit: Audit, code: int = 0, queue: str = "celery") -> dict[str, Any]:
    found = audit("--json")
    assert found.returncode == code, found
    return next(row for row in json.loads(found.stdout)["audit"] if row["queue"] == queue)


def test_all_that_can_come_of_a_message_is_in_the_books(lab: Lab, audit: Audit) -> None:
    worker = lab.worker("-c", "2")
    before, letters = books(audit), len(lab.dead())
    ids = [lab.send("add", number, 1) for number in range(20)]
    ids += [lab.send("boom"), lab.send("flaky", 2), lab.send("reject"), lab.send("killed", 2)]
    ids.append(lab.send("add", 1, 1, expires=datetime.now(UTC) - timedelta(seconds=5)))
    lab.redis.lpush("celery", b"no message")
    lab.send("ignore")
    for task_id in ids:
        lab.wait_for(lambda task_id=task_id: lab.state(task_id) in ("SUCCESS", "FAILURE", "REVOKED"), task_id, 30)
    lab.wait_for(lab.is_quiet, "nothing is left")
    lab.send("nap", "long", 30)
    lab.wait_mark("begin", "long")
    lab.send("add", 1, 1, countdown=3600)
    lab.wait_for(lambda: lab.redis.zcard("opsq:delayed:{celery}"), "one is for later")
    told = books(audit)
    assert told["missing"] == 0
    ends = ("succeeded", "failed", "retried", "dead", "expired", "ignored")
    assert {end: told[end] - before[end] for end in ends} == dict(zip(ends, (22, 1, 2, 2, 1, 1), strict=True))
    assert (told["running"], told["delayed"], told["waiting"], told["dead_letters"]) == (1, 1, 0, letters + 2)
    assert told["sent"] - before["sent"] == 22 + 1 + 2 + 2 + 1 + 1 + 1 + 1
    assert told["moved"] - before["moved"] >= 2  # those that were lost with their process
    os.killpg(worker.pid, signal.SIGKILL)
    assert books(audit)["missing"] == 0
    lab.redis.delete("opsq:delayed:{celery}")
    again = lab.worker("-c", "2")
    lab.wait_for(lab.is_quiet, "the one that was cut off is settled")
    assert (books(audit)["dead"] - before["dead"], books(audit)["missing"]) == (3, 0)
    assert again.stop() == 0


def test_the_books_balance_at_any_instant_of_a_busy_worker(lab: Lab) -> None:
    from opsq.broker import audit as store

    worker = lab.worker("-c", "2")
    lab.push("celery", *[("add", number, number) for number in range(3000)])
    looks = 0
    while lab.depth():
        (balance,) = store.balances(lab.app.broker, ["celery"])
        assert balance.missing == 0
        looks += balance.in_flight > 0
    lab.wait_for(lab.is_quiet, "all are done")
    assert looks
    assert store.balances(lab.app.broker, ["celery"])[0].missing == 0
    assert worker.stop() == 0


def test_a_message_that_vanishes_in_the_hands_of_a_worker_is_missed(lab: Lab, audit: Audit) -> None:
    worker = lab.worker("-c", "1")
    known = books(audit)["known"]
    lab.send("nap", "vanishes", 1.0)
    lab.wait_mark("begin", "vanishes")
    (store,) = lab.redis.keys("opsq:inflight:*")
    lab.redis.delete(store)
    assert books(audit, code=1)["missing"] == 1
    found = audit()
    assert found.returncode == 1
    assert "nothing is known of 1 message taken from 'celery'" in found.stderr
    assert "hint: opsq doctor" in found.stderr
    assert audit("--accept").returncode == 0
    told = books(audit)
    assert (told["missing"], told["known"]) == (0, known + 1)
    assert worker.stop() == 0


def test_what_nobody_would_rescue_is_named_with_the_command_that_mends_it(lab: Lab, audit: Audit) -> None:
    worker = lab.worker("-c", "1")
    lab.send("nap", "orphan", 30)
    lab.wait_mark("begin", "orphan")
    os.killpg(worker.pid, signal.SIGKILL)
    (store,) = lab.redis.keys("opsq:inflight:*")
    name = store.decode().partition("}:")[2]
    lab.redis.zrem(keys.consumers("celery"), name)
    for path in lab.folder.rglob("*.slots"):
        path.unlink()
    found = audit()
    assert found.returncode == 1
    assert f"{name} holds them and is not registered" in found.stderr
    assert f"ZADD 'opsq:consumers:{{celery}}' 0 '{name}'" in found.stderr
    lab.redis.zadd("opsq:consumers:{celery}", {name: 0})
    assert books(audit)["missing"] == 0
    again = lab.worker("-c", "1", "--lease", "1")
    lab.wait_for(lab.is_quiet, "it was taken over", 20)
    assert books(audit)["missing"] == 0
    assert again.stop() == 0
