"""Countdown, ETA and expiry: later is kept in Redis, nothing runs before its time, and little after it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest
from support import lab as labs
from support.lab import Lab

from opsq.broker import audit
from opsq.protocol import envelope

#: How much later than its time a message may begin to run (seconds).
LATE_S = labs.soon(0.1)

TASKS = """
app.conf.timezone = "Asia/Tokyo"


@app.task
def note(text):
    mark("note", text)


@app.task(bind=True)
def again_at(self, naive):
    from datetime import datetime

    if not self.request.retries:
        raise self.retry(eta=datetime.fromisoformat(naive))
    mark("note", naive)


@app.task(bind=True)
def about(self):
    return [self.request.eta, self.request.expires]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        # Renewals are so rare that only a notice wakes the mover in time.
        lab.worker("-c", "2", "--lease", "90", name="worker")
        yield lab


@pytest.fixture(autouse=True)
def _nothing_is_left(lab: Lab) -> Iterator[None]:
    yield
    lab.redis.delete("opsq:delayed:{celery}")


def delayed(lab: Lab) -> list[tuple[envelope.Envelope, float]]:
    """The messages in the delayed set, and when they are due (Unix seconds)."""
    found: Any = lab.redis.zrange("opsq:delayed:{celery}", 0, -1, withscores=True)
    return [(envelope.parse(member.partition(b"|")[2]), score / 1000) for member, score in found]


def begun(lab: Lab, text: str, timeout: float = 10) -> float:
    """When the task that notes the text began to run."""
    return lab.wait_mark("note", text, timeout).time


def as_celery_sends(lab: Lab, task: str, *args: Any, **headers: Any) -> str:
    """A message as a Celery client sends it, straight into the list."""
    task_id = labs.new_id()
    lab.redis.lpush("celery", labs.message(task, task_id, args, **headers))
    return task_id


def test_a_countdown_waits_in_the_delayed_set_and_runs_when_it_is_due(lab: Lab) -> None:
    sent = time.time()
    task_id = lab.send("note", "countdown", countdown=0.4)
    ((message, due),) = delayed(lab)
    assert message.headers.id == task_id
    assert due - sent == pytest.approx(0.4, abs=0.1)
    assert labs.moment(message.headers.eta or "") == pytest.approx(due, abs=0.002)
    assert lab.depth() == lab.in_flight() == 0
    assert 0 <= begun(lab, "countdown") - due < LATE_S
    lab.result(task_id)


def test_an_eta_in_any_zone_is_that_point_in_time(lab: Lab) -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.3)
    lab.send("note", "utc", eta=due)
    lab.send("note", "tokyo", eta=due.astimezone(labs.zone("Asia/Tokyo")))
    for text in ("utc", "tokyo"):
        assert 0 <= begun(lab, text) - due.timestamp() < LATE_S


def test_a_naive_eta_is_of_the_zone_of_the_workers_app(lab: Lab) -> None:
    due = datetime.now(labs.zone("Asia/Tokyo")) + timedelta(seconds=0.4)
    as_celery_sends(lab, "note", "naive", eta=due.replace(tzinfo=None).isoformat())
    assert 0 <= begun(lab, "naive") - due.timestamp() < LATE_S


def test_a_naive_eta_of_a_retry_is_of_that_zone_too(lab: Lab) -> None:
    due = datetime.now(labs.zone("Asia/Tokyo")) + timedelta(seconds=0.4)
    text = due.replace(tzinfo=None).isoformat()
    lab.send("again_at", text)
    assert 0 <= begun(lab, text) - due.timestamp() < LATE_S


def test_an_eta_in_the_past_runs_at_once(lab: Lab) -> None:
    sent = time.time()
    lab.send("note", "past", eta=datetime.now(UTC) - timedelta(hours=1))
    as_celery_sends(lab, "note", "past from Celery", eta="2020-01-01T00:00:00Z")
    assert begun(lab, "past") - sent < LATE_S
    assert begun(lab, "past from Celery") - sent < LATE_S


def test_many_that_are_due_together_all_run_in_their_order(lab: Lab) -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.6)
    for number in range(1200):
        lab.send("note", f"crowd-{number:04}", eta=due, ignore_result=True)
    lab.wait_for(lambda: len([mark for mark in lab.written() if "crowd" in mark.text]) == 1200, "all have run")
    crowd = [mark for mark in lab.written() if "crowd" in mark.text]
    assert len({mark.text for mark in crowd}) == 1200
    assert min(mark.time for mark in crowd) >= due.timestamp()
    assert max(mark.time for mark in crowd) - due.timestamp() < LATE_S


def test_what_is_for_later_stays_where_it_is_until_it_is_due(lab: Lab) -> None:
    """Who took it before would put it back, and take it again."""
    (before,) = audit.balances(lab.app.broker, ["celery"])
    lab.result(lab.send("note", "once", countdown=0.4))
    (after,) = audit.balances(lab.app.broker, ["celery"])
    assert after.taken - before.taken < 5
    assert after.moved - before.moved < 5


def test_an_earlier_one_wakes_who_sleeps_until_a_later_one(lab: Lab) -> None:
    lab.send("note", "later", countdown=60)
    lab.wait_for(lambda: len(delayed(lab)) == 1, "the later one is there")
    lab.wait_for(lambda: not lab.in_flight(), "and nobody is busy")
    due = datetime.now(UTC) + timedelta(seconds=0.25)
    lab.send("note", "earlier", eta=due)
    assert 0 <= begun(lab, "earlier") - due.timestamp() < LATE_S
    assert [message.headers.eta for message, _due in delayed(lab)], "the later one is still there"
    assert not lab.written("note", "later")


def test_a_far_eta_that_comes_as_a_plain_message_is_shelved_and_nothing_stays_in_memory(lab: Lab) -> None:
    worker = psutil.Process(lab.spawn.running[0].pid)
    far = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    sent: set[bytes] = set()

    def memory_after_shelving(count: int) -> int:
        messages = [labs.message("note", labs.new_id(), ("x" * 5_000,), eta=far) for _ in range(count)]
        sent.update(messages)
        lab.redis.lpush("celery", *messages)
        lab.wait_for(lambda: lab.redis.zcard("opsq:delayed:{celery}") == len(sent), "all are shelved")
        lab.wait_for(lambda: not lab.depth() and not lab.in_flight(), "nothing is in flight")
        return sum(process.memory_info().rss for process in (worker, *worker.children(recursive=True)))

    # What a child has in hand at the moment, and what its allocator keeps, comes and goes: some MB each.
    first, *_, last = [memory_after_shelving(1500) for _ in range(12)]
    assert last - first < 30e6, "82 MB more are in Redis, and in memory"
    assert {member.partition(b"|")[2] for member in lab.redis.zrange("opsq:delayed:{celery}", 0, -1)} == sent
    assert lab.run("add", 1, 1) == 2


def test_a_shelved_message_keeps_its_priority(lab: Lab) -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.3)
    task_id = labs.new_id()
    lab.redis.lpush("celery\x06\x166", labs.message("note", task_id, ("high",), eta=due.isoformat(), priority=7))
    lab.wait_for(lambda: delayed(lab) and not lab.depth(), "it is shelved")
    ((member, _due),) = lab.redis.zrange("opsq:delayed:{celery}", 0, -1, withscores=True)
    assert member.partition(b"|")[0] == b"6"
    assert 0 <= begun(lab, "high") - due.timestamp() < LATE_S


def test_the_mover_lets_through_what_comes_while_it_waits(lab: Lab) -> None:
    """Delayed messages with many different times, sent in no order, each run in time."""
    start = time.time() + 0.3
    offsets = [(number * 37 % 50) / 100 for number in range(50)]
    for offset in offsets:
        lab.send("note", f"mixed-{offset}", eta=datetime.fromtimestamp(start + offset, UTC), ignore_result=True)
    for offset in offsets:
        assert 0 <= begun(lab, f"mixed-{offset}") - (start + offset) < LATE_S


# -- expiry ---------------------------------------------------------------------------------------------------------


def test_what_has_expired_is_revoked_and_gone(lab: Lab) -> None:
    task_id = as_celery_sends(lab, "note", "expired", expires="2020-01-01T00:00:00+00:00")
    record = lab.result(task_id, "REVOKED")
    assert record["result"] == {
        "exc_type": "TaskRevokedError",
        "exc_message": ["expired"],
        "exc_module": "celery.exceptions",
    }
    lab.wait_for(lab.is_quiet, "its message is gone")
    assert task_id not in lab.dead()
    assert not lab.written("note", "expired")
    assert any("Discarding revoked task: proj.note" in line for line in lab.lines(lab.spawn.running[0], task_id))


def test_what_expires_while_it_waits_for_its_eta_does_not_run(lab: Lab) -> None:
    task_id = lab.send("note", "too late", countdown=0.4, expires=0.2)
    lab.result(task_id, "REVOKED")
    assert not lab.written("note", "too late")


@pytest.mark.parametrize("sender", ["opsq", "celery"])
def test_who_waits_for_what_expires_before_it_is_due_is_told_when_it_expires(lab: Lab, sender: str) -> None:
    soon, far = (datetime.now(UTC) + timedelta(seconds=seconds) for seconds in (0.3, 3600))
    if sender == "opsq":
        task_id = lab.send("note", "expires first", eta=far, expires=soon)
    else:
        task_id = as_celery_sends(lab, "note", "expires first", eta=far.isoformat(), expires=soon.isoformat())
    assert lab.result(task_id, "REVOKED", timeout=LATE_S)["result"]["exc_message"] == ["expired"]
    assert time.time() >= soon.timestamp()
    assert not lab.written("note", "expires first")


def test_what_has_not_expired_runs(lab: Lab) -> None:
    sent = time.time()
    eta, expires = lab.run("about", expires=60)
    assert eta is None
    assert labs.moment(expires) - sent == pytest.approx(60, abs=1)


def test_an_expired_task_without_a_result_leaves_none(lab: Lab) -> None:
    task_id = as_celery_sends(lab, "note", "gone", expires="2020-01-01T00:00:00", ignore_result=True)
    lab.wait_for(lambda: lab.lines(lab.spawn.running[0], task_id), "it is discarded")
    lab.wait_for(lab.is_quiet, "its message is gone")
    assert lab.record(task_id) is None


def test_without_a_live_worker_a_message_for_later_goes_out_as_celery_sends_it(lab: Lab) -> None:
    due = datetime.now(UTC) + timedelta(days=1)
    lab.send("note", "nobody there", eta=due, queue="nobody")
    raw: Any = lab.redis.rpop("nobody")
    assert envelope.parse(raw).headers.eta == due.isoformat()
    assert not lab.redis.exists("opsq:delayed:{nobody}")


def test_delayed_messages_outlive_their_worker(lab: Lab) -> None:
    first = lab.worker("-c", "1", "-Q", "patient", name="first")
    task_id = lab.send("note", "outlives", countdown=1.0, queue="patient")
    assert first.stop() == 0
    assert lab.redis.zcard("opsq:delayed:{patient}") == 1
    second = lab.worker("-c", "1", "-Q", "patient", name="second")
    lab.result(task_id)
    assert lab.written("note", "outlives")
    assert second.stop() == 0


def test_a_worker_that_comes_late_runs_what_has_become_due(lab: Lab) -> None:
    lab.worker("-c", "1", "-Q", "patient", name="third").stop()
    due = time.time() - 5
    raw = labs.message("note", labs.new_id(), ("overdue",), eta=datetime.fromtimestamp(due, UTC).isoformat())
    lab.redis.zadd("opsq:delayed:{patient}", {b"|" + raw: due * 1000})
    fourth = lab.worker("-c", "1", "-Q", "patient", name="fourth")
    assert begun(lab, "overdue") - time.time() < LATE_S
    assert fourth.stop() == 0
