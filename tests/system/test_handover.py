"""`opsq queues handover --to-celery`: what opsq keeps of a queue comes to where Celery's workers look, once."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import redis
from support import lab as labs
from support.lab import OPSQ, Lab
from support.processes import Running

from opsq import App, chord, signature
from opsq.broker.handover import delayed_to_celery
from opsq.exceptions import OpsqError
from opsq.protocol import envelope

TASKS = """
@app.task(rate_limit="1/h", rate_limit_scope="cluster")
def rare(n):
    mark("rare", n)


@app.task(acks_late=True)
def late(text, seconds=0.0):
    mark("begin", text)
    time.sleep(seconds)


@app.task
def total(values):
    return sum(values)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _clean(lab: Lab) -> Iterator[None]:
    yield
    lab.end_workers()
    lab.redis.flushall()


def hand_over(lab: Lab, *words: str, queue: str = "celery", **environment: str) -> tuple[int, str, Any]:
    """The exit code, what was said, and the document (if it was asked for and there is one)."""
    argv = [*OPSQ, "-A", "proj", "queues", "handover", "--to-celery", queue, *words]
    done = lab.spawn(argv, env={**lab.environment, **environment}, cwd=lab.folder)
    code, text = done.wait(), done.output()
    document = text[text.index("{") :] if "--json" in words and "{" in text else "null"
    return code, text, json.loads(document)


def waiting(client: redis.Redis, name: str = "celery") -> list[Any]:
    """The messages of a list, the next one first."""
    raws: Any = client.lrange(name, 0, -1)
    return [envelope.parse(raw) for raw in reversed(raws)]


def numbers(client: redis.Redis, name: str = "celery") -> list[Any]:
    return [each.arguments(frozenset(["application/json"]))[0][0] for each in waiting(client, name)]


def test_what_is_for_later_goes_into_the_queue_with_its_due_time(lab: Lab) -> None:
    lab.redis.zadd("opsq:consumers:{celery}", {"somebody": 2**53})
    for n in range(1200):
        lab.send("add", n, countdown=3600 + n)
    lab.send("add", 9, countdown=3600, priority=9)
    lab.redis.zrem("opsq:consumers:{celery}", "somebody")
    code, text, _ = hand_over(lab)
    assert (code, "celery: 1201 messages for later" in text) == (0, True), text
    assert numbers(lab.redis) == list(range(1200))
    assert numbers(lab.redis, "celery\x06\x169") == [9]
    for message in (*waiting(lab.redis)[:3], *waiting(lab.redis, "celery\x06\x169")):
        due = datetime.fromisoformat(str(message.headers.eta))
        assert due.tzinfo is not None
        assert 3500 < due.timestamp() - time.time() < 3610
    assert not lab.redis.exists("opsq:delayed:{celery}")
    assert hand_over(lab, "--json")[2]["handed_over"][0]["delayed"] == 0


def test_what_was_sent_stays_as_it_was(lab: Lab) -> None:
    lab.app.send_task("proj.add", (1, 2), debounce=600, unique_key="x")
    [member] = lab.redis.zrange("opsq:delayed:{celery}", 0, -1)  # type: ignore[misc]
    assert hand_over(lab)[0] == 0
    [message] = waiting(lab.redis)
    assert b"|" + message.raw == member
    assert message.headers.eta is not None


def test_what_waits_for_limits_goes_to_the_head_of_the_queue_in_its_order(lab: Lab) -> None:
    worker = lab.worker("-c", "1")
    for n in range(700):
        lab.send("rare", n)
    lab.wait_for(lambda: lab.redis.hget("opsq:lane-facts:{celery}", "#") == b"699", "699 wait for the rate")
    assert worker.stop() == 0
    lab.send("add", "last")
    assert hand_over(lab)[0] == 0
    assert numbers(lab.redis) == [*range(1, 700), "last"]
    assert not list(lab.redis.scan_iter("opsq:lane*")) + list(lab.redis.scan_iter("opsq:limited:*"))


def test_unique_messages_give_back_what_they_have_claimed(lab: Lab) -> None:
    first = lab.send("add", 1, unique_key="k")
    lab.redis.zadd("opsq:consumers:{celery}", {"somebody": 2**53})
    lab.send("add", 2, unique_key="l", countdown=600)
    lab.redis.zrem("opsq:consumers:{celery}", "somebody")
    assert lab.send("add", 1, unique_key="k") == first
    assert len(list(lab.redis.scan_iter("opsq:unique:*"))) == 2
    assert hand_over(lab)[0] == 0
    assert not list(lab.redis.scan_iter("opsq:unique:*"))


def test_a_handover_that_is_killed_is_done_by_the_next_one(lab: Lab) -> None:
    lab.redis.zadd("opsq:consumers:{celery}", {"somebody": 2**53})
    lab.app.send_many(("proj.add", (n, 0), None, {"countdown": 3600}) for n in range(20_000))
    lab.redis.zrem("opsq:consumers:{celery}", "somebody")
    argv = [*OPSQ, "-A", "proj", "queues", "handover", "--to-celery", "celery"]
    cut = lab.spawn(argv, env=lab.environment, cwd=lab.folder)
    lab.wait_for(lambda: lab.depth() > 1000, "it is at work")
    cut.send(signal.SIGKILL)
    cut.wait()
    assert lab.redis.zcard("opsq:delayed:{celery}") > 0, "it was cut off"
    assert hand_over(lab)[0] == 0
    assert sorted(numbers(lab.redis)) == list(range(20_000))


def test_while_a_worker_takes_from_the_queue_nothing_is_done(lab: Lab) -> None:
    lab.worker("-c", "1", "-n", "busy@here", "--lease", "1")
    lab.send("add", 1, countdown=3600)
    code, text, _ = hand_over(lab)
    assert code == 1
    assert "cannot hand over celery: busy@here still takes from there" in text
    assert lab.redis.zcard("opsq:delayed:{celery}") == 1
    assert lab.depth() == 0


def kill(worker: Running) -> None:
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def test_what_a_killed_worker_of_this_host_held_goes_back_or_is_buried_as_its_tasks_say(lab: Lab) -> None:
    worker = lab.worker("-c", "2", "-O", "fair")
    lab.push("celery", ("late", "a", 60), ("nap", "b", 60))
    lab.wait_mark("begin", "a")
    lab.wait_mark("begin", "b")
    kill(worker)
    began = time.monotonic()
    code, text, document = hand_over(lab, "--json")
    assert (code, document["handed_over"][0]["in_flight"]) == (0, 2), text
    assert time.monotonic() - began < 14, "its lease need not run out: it is known to be gone"
    [message] = waiting(lab.redis)
    assert message.headers.task == "proj.late"
    assert [letter["task"] for letter in lab.dead().values()] == ["proj.nap"]
    assert not lab.redis.exists("opsq:consumers:{celery}")
    assert lab.in_flight() == 0


def test_a_worker_elsewhere_that_is_lost_is_waited_for_until_its_lease_is_over(lab: Lab) -> None:
    worker = lab.worker("-c", "1", "--lease", "3", OPSQ_STATE_DIR=str(lab.folder / "elsewhere"))
    lab.push("celery", ("late", "c", 60))
    lab.wait_mark("begin", "c")
    kill(worker)
    killed = time.monotonic()
    code, text, _ = hand_over(lab)
    assert code == 0
    assert "waiting until the leases of" in text
    assert time.monotonic() - killed > 1.5
    assert numbers(lab.redis) == ["c"]
    assert lab.in_flight() == 0


def test_after_an_outage_a_worker_that_lives_is_not_robbed(lab: Lab) -> None:
    """Its lease has run out, as those of all do when Redis was away; it renews it soon."""
    lab.worker("-c", "1", "--lease", "3", OPSQ_STATE_DIR=str(lab.folder / "elsewhere"))
    lab.push("celery", ("late", "d", 4))
    lab.wait_mark("begin", "d")
    lab.redis.zadd("opsq:consumers:{celery}", dict.fromkeys(lab.redis.zrange("opsq:consumers:{celery}", 0, -1), 1))  # type: ignore[arg-type]
    code, text, _ = hand_over(lab)
    assert code == 1, text
    assert "still takes from there" in text
    lab.wait_for(lambda: lab.in_flight() == 0, "it has ended")
    assert len(lab.written("begin", "d")) == 1
    assert not lab.dead()


def test_without_the_app_nobodys_tasks_are_judged(lab: Lab) -> None:
    worker = lab.worker("-c", "1")
    lab.push("celery", ("late", "e", 60))
    lab.wait_mark("begin", "e")
    kill(worker)
    argv = [*OPSQ, "queues", "handover", "--to-celery", "celery"]
    done = lab.spawn(argv, env=lab.environment, cwd=lab.folder.parent)
    assert done.wait() == 2
    assert "the app here has no task proj.late" in done.output()
    assert lab.in_flight() == 1
    assert hand_over(lab)[0] == 0
    assert numbers(lab.redis) == ["e"]


def test_a_chord_whose_part_is_buried_fails_though_no_worker_is_left(lab: Lab) -> None:
    worker = lab.worker("-c", "1")
    app: App = lab.app
    body = signature("proj.total", app=app)
    header = [signature("proj.add", (1, 1), app=app), signature("proj.nap", ("f", 60), app=app)]
    result = chord(header)(body)
    lab.wait_mark("begin", "f")
    kill(worker)
    assert hand_over(lab)[0] == 0
    assert "WorkerLostError" in str(lab.result(result.id, "FAILURE")["result"])


def test_a_dry_run_says_what_there_is(lab: Lab) -> None:
    lab.redis.zadd("opsq:consumers:{celery}", {"somebody": 2**53})
    lab.send("add", 1, countdown=3600)
    code, text, _ = hand_over(lab, "--dry-run")
    assert (code, "1 messages for later" in text, "would be Celery's" in text) == (0, True, True)
    assert lab.redis.zcard("opsq:delayed:{celery}") == 1
    lab.redis.flushall()


def test_what_cannot_be_written_stays_where_it_is(lab: Lab) -> None:
    lab.redis.zadd("opsq:consumers:{celery}", {"somebody": 2**53})
    lab.send("add", 1, countdown=3600, priority=9)
    lab.redis.set("celery\x06\x169", "no list")
    with pytest.raises(OpsqError, match="cannot hand over all of celery: a message cannot be written"):
        delayed_to_celery(lab.app.broker, "celery")
    assert lab.redis.zcard("opsq:delayed:{celery}") == 1


def test_an_unknown_queue_is_told_with_the_nearest(lab: Lab) -> None:
    lab.send("add", 1, queue="mail")
    code, text, _ = hand_over(lab, queue="mial")
    assert (code, "there is no queue 'mial'" in text, "did you mean mail?" in text) == (2, True, True), text


def test_the_word_without_its_noun_is_answered_with_both(lab: Lab) -> None:
    running = lab.spawn([*OPSQ, "handover", "--to-celery", "mail"], name="handover")
    assert running.wait() == 2
    assert "handover is `opsq queues handover --to-celery QUEUE` here" in running.output()
