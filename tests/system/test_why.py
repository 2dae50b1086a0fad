"""`opsq why`: one sentence that says where a task is or what came of it, and the command that comes next."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support import lab as labs
from support.lab import OPSQ, Lab, message, new_id

from opsq.broker import audit, moving

TASKS = """
@app.task
def boom(text):
    raise ValueError(text)


@app.task(bind=True, max_retries=3)
def flaky(self):
    raise self.retry(exc=RuntimeError("not yet"), countdown=300)


def hold(text):
    # Runs until the test lets it go.
    mark("begin", text)
    until = time.monotonic() + 100
    while not os.path.exists(f"{os.environ['MARKS']}-{text}") and time.monotonic() < until:
        time.sleep(0.01)
    mark("end", text)


@app.task
def held(text):
    hold(text)


@app.task(acks_late=True)
def late(text):
    hold(text)


@app.task(bind=True, acks_late=True)
def killed_once(self):
    if not (self.request.headers or {}).get("x-opsq-deliveries"):
        os.kill(os.getpid(), 9)


@app.task
def early_and_killed():
    os.kill(os.getpid(), 9)


@app.task(rate_limit="1/h", rate_limit_scope="cluster")
def rare(number):
    return number


@app.task(ignore_result=True)
def nobody_asks():
    mark("end", "nobody asks")
"""
Why = Callable[..., dict[str, Any]]
#: How long a condition is waited for that asks the command again and again (seconds).
PATIENCE_S = 30


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as opened:
        yield opened


@pytest.fixture(scope="module")
def why(lab: Lab) -> Why:
    """`why(id)`: what the command says as JSON; the words for people are the same."""

    def run(task_id: str, code: int = 0) -> dict[str, Any]:
        line = [*OPSQ, "-A", "proj", "why", task_id]
        options: dict[str, Any] = {"cwd": lab.folder, "env": lab.spawn.environment(lab.environment), "text": True}
        found = subprocess.run([*line, "--json"], capture_output=True, **options)
        assert found.returncode == code, found
        told: dict[str, Any] = json.loads(found.stdout)
        return told

    return run


def let_go(lab: Lab, text: str) -> None:
    """Let a task end that is held, whenever it begins."""
    (lab.folder / f"marks-{text}").touch()


def test_the_words_and_the_next_step_are_two_lines(lab: Lab) -> None:
    task_id = lab.send("add", 1, 2, queue="words")
    options: dict[str, Any] = {"cwd": lab.folder, "env": lab.spawn.environment(lab.environment), "text": True}
    found = subprocess.run([*OPSQ, "-A", "proj", "why", task_id], capture_output=True, **options)
    assert found.returncode == 0
    assert found.stdout.splitlines() == [
        "proj.add waits in 'words', next: no worker consumes the queue",
        "next: opsq worker -Q words",
    ]
    lab.redis.delete("words")


def test_a_task_that_waits(lab: Lab, why: Why) -> None:
    ids = [lab.send("add", number, 1, queue="mail") for number in range(3)]
    last = lab.send("add", 9, 9, queue="mail", priority=5)
    told = why(ids[2])
    assert (told["state"], told["next"]) == ("no consumer", "opsq worker -Q mail")
    assert "waits in 'mail', behind 2 others: no worker consumes the queue" in told["sentence"]
    assert "behind 3 others" in why(last)["sentence"]
    subprocess.run(
        [*OPSQ, "-A", "proj", "queues", "pause", "mail"],
        cwd=lab.folder,
        check=True,
        capture_output=True,
        env=lab.spawn.environment(lab.environment),
    )
    told = why(ids[0])
    assert (told["state"], told["next"]) == ("paused", "opsq queues resume mail")
    lab.redis.delete("mail", "mail\x06\x163", "opsq:paused:{mail}")


def test_a_task_is_found_among_a_hundred_thousand(lab: Lab, why: Why) -> None:
    lab.redis.sadd("opsq:queues", "big")
    task_id = new_id()
    filler = message("add", new_id(), (1, 2), parent_id=task_id)
    for first in range(10):
        if first == 5:
            lab.redis.lpush("big", message("add", task_id))
        lab.redis.lpush("big", *[filler] * 10_000)
    assert "behind 50,000 others" in why(task_id)["sentence"]
    lab.redis.delete("big")


def test_a_task_that_runs_and_one_that_is_for_later(lab: Lab, why: Why) -> None:
    worker = lab.worker("-c", "1", "--lease", "1")
    task_id = lab.send("held", "runs")
    lab.wait_mark("begin", "runs")
    told = lab.wait_for(lambda: (found := why(task_id))["state"] == "running" and found, "it is said to run")
    (mark,) = lab.written("begin", "runs")
    assert f"(pid {mark.pid}) since " in told["sentence"]
    assert told["messages"][0]["kind"] == "in flight"
    waiting = lab.send("add", 1, 1)
    told = why(waiting)
    assert told["state"] == "waiting"
    assert "waits in 'celery', next: 1 child takes from the queue, 1 busy" in told["sentence"]
    later = lab.send("add", 1, 1, countdown=600)
    told = why(later)
    assert told["state"] == "delayed"
    assert 590 < told["messages"][0]["due"] - time.time() <= 600
    assert "is due at" in told["sentence"]
    let_go(lab, "runs")
    assert worker.stop() == 0
    told = why(later)
    assert (told["state"], told["next"]) == ("delayed", "opsq worker -Q celery")
    lab.redis.delete("opsq:delayed:{celery}")


def test_a_task_in_a_pool_that_runs_many(lab: Lab, why: Why) -> None:
    worker = lab.worker("-P", "threads", "-c", "4", "--lease", "1")
    ids = [lab.send("held", f"thread-{number}") for number in range(2)]
    for number in range(2):
        lab.wait_mark("begin", f"thread-{number}", PATIENCE_S)
    both = "2 tasks at once"
    told = lab.wait_for(lambda: both in (found := why(ids[0]))["sentence"] and found, "both run", PATIENCE_S)
    assert told["state"] == "running"
    for number in range(2):
        let_go(lab, f"thread-{number}")
    assert worker.stop() == 0


def test_a_task_that_has_ended(lab: Lab, why: Why) -> None:
    worker = lab.worker("-c", "1")
    good, bad, retried = lab.send("add", 1, 2), lab.send("boom", "no wings"), lab.send("flaky")
    expired = lab.send("add", 1, 1, expires=datetime.now(UTC) - timedelta(seconds=9))
    revoked = lab.send("add", 1, 1, countdown=600)
    lab.app.control.revoke(revoked)
    lab.result(good)
    lab.result(bad, "FAILURE")
    lab.result(expired, "REVOKED")
    lab.result(revoked, "REVOKED")
    lab.wait_for(lambda: lab.state(retried) == "RETRY", "it is to be tried again")
    assert (why(good)["state"], why(good)["next"]) == ("succeeded", f"opsq results {good}")
    assert "failed at" in why(bad)["sentence"]
    assert "ValueError: no wings" in why(bad)["sentence"]
    assert why(expired)["state"] == "expired"
    assert why(revoked)["state"] == "revoked"
    assert "was revoked at" in why(revoked)["sentence"]
    told = why(retried)
    assert told["state"] == "delayed"
    assert "failed and is tried again" in told["sentence"]
    assert "RuntimeError: not yet" in told["sentence"]
    unknown = why(new_id(), code=1)
    assert unknown["state"] == "unknown"
    silent = lab.send("nobody_asks")
    lab.wait_mark("end", "nobody asks")
    lab.wait_for(lambda: not lab.in_flight(), "it is settled")
    assert "was not kept" in why(silent, code=1)["sentence"]
    lab.redis.delete("opsq:delayed:{celery}")
    assert worker.stop() == 0


def test_a_task_that_was_lost_with_its_process(lab: Lab, why: Why) -> None:
    worker = lab.worker("-c", "1", "-n", "front@%h")
    twice, once = lab.send("killed_once"), lab.send("early_and_killed")
    lab.result(twice, timeout=PATIENCE_S)
    lab.result(once, "FAILURE", PATIENCE_S)
    told = why(twice)
    assert told["state"] == "succeeded"
    assert "it was given back once: front@" in told["sentence"]
    assert "lost it at" in told["sentence"]
    assert "killed by SIGKILL" in told["sentence"]
    told = why(once)
    assert told["state"] == "dead"
    assert "killed by SIGKILL" in told["sentence"]
    assert told["next"] == f"opsq dead show {once}, then opsq dead requeue {once}"
    assert worker.stop() == 0


def test_a_task_whose_host_was_lost(lab: Lab, why: Why) -> None:
    worker = lab.worker("-c", "1", "-n", "gone@%h", "--lease", "1", OPSQ_STATE_DIR=str(lab.folder / "gone"))
    task_id = lab.send("late", "lost-host")
    lab.wait_mark("begin", "lost-host", PATIENCE_S)
    behind = lab.send("late", "behind")
    os.killpg(worker.pid, signal.SIGKILL)
    worker.process.wait()
    shutil.rmtree(lab.folder / "gone")
    is_lost = "held by the lost"
    told = lab.wait_for(lambda: (found := why(task_id))["state"] == is_lost and found, "its lease runs out", PATIENCE_S)
    assert "no worker of 'celery' is left to take over" in told["sentence"]
    assert told["next"] == "opsq worker -Q celery"
    let_go(lab, "lost-host")
    let_go(lab, "behind")
    again = lab.worker("-c", "1", "--lease", "1")
    lab.result(task_id, timeout=PATIENCE_S)
    lab.result(behind, timeout=PATIENCE_S)
    told = why(task_id)
    assert told["state"] == "succeeded"
    assert "it was given back once: gone@" in told["sentence"]
    assert [loss["fate"] for loss in told["losses"]] == ["back"]
    assert again.stop() == 0


def test_a_task_that_waits_for_its_limits_or_was_revoked(lab: Lab, why: Why) -> None:
    worker = lab.worker("-c", "1")
    ids = [lab.send("rare", number) for number in range(3)]
    lab.result(ids[0])
    lab.wait_for(lambda: not lab.depth() and not lab.in_flight(), "the others wait for their limits")
    told = why(ids[2])
    assert (told["state"], told["next"]) == ("limited", "opsq limits")
    assert "waits for the limits of the task proj.rare, behind 1 other: 1/h" in told["sentence"]
    expiring = lab.send("rare", 3, expires=3600)
    lab.wait_for(lambda: why(expiring)["state"] == "limited", "it waits too", PATIENCE_S)
    assert "; it expires at " in why(expiring)["sentence"]
    assert 3500 < why(expiring)["messages"][0]["expires"] - time.time() < 3601
    lab.app.control.revoke(expiring)
    lab.result(expiring, "REVOKED")
    (books,) = audit.balances(lab.app.broker, ["celery"])
    assert (books.limited, books.missing) == (2, 0)
    assert worker.stop() == 0
    waiting = lab.send("add", 1, 1)
    lab.app.control.revoke(waiting)
    assert "; it was revoked: who takes it throws it away" in why(waiting)["sentence"]
    moving.purge(lab.app.broker, "celery")


def test_a_task_in_the_hands_of_a_celery_worker(lab: Lab, why: Why) -> None:
    task_id = new_id()
    entry = [json.loads(message("add", task_id)), "", "celery"]
    lab.redis.hset("unacked", "tag", json.dumps(entry))
    lab.redis.zadd("unacked_index", {"tag": time.time()})
    assert why(task_id)["state"] == "with celery"
    lab.redis.delete("unacked", "unacked_index")
