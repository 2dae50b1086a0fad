"""What a worker that was killed left behind on its host: its children end first, then everything is settled exactly."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from opsq.broker.broker import Broker
from opsq.broker.consumer import Consumer
from opsq.broker.settlement import Settlement
from opsq.broker.stats import totals
from opsq.datastore import keys
from opsq.execution.runner import Runner
from opsq.protocol import envelope, writing
from opsq.runtime import process
from opsq.worker import slots
from opsq.worker.settle import Results, Settler
from opsq.worker.slots import Facts, Slots
from opsq.worker.successor import Judge, digest, settle_leftovers, settle_slot, take_over

QUEUE, WORKER = "celery", "w@h:0badcafe"
ACCEPT = frozenset({"application/json"})
#: After so many deliveries a message is dead here.
MAX_DELIVERIES = 5


@pytest.fixture
def app() -> Any:
    from opsq import Celery

    app = Celery("left", set_as_current=False)
    app.task(lambda: None, name="late", acks_late=True)
    app.task(lambda: None, name="early")
    app.task(lambda: None, name="fails", acks_late=True, reject_on_worker_lost=False)
    return app


@dataclass
class Left:
    """A slots file and a consumer's store, as a killed worker leaves them."""

    url: str
    client: redis.Redis
    folder: Path
    judge: Judge
    table: Slots

    def hold(self, *names: str, started: int, **headers: Any) -> None:
        """The child of slot 0 holds a message of each task; the first `started` of them had been started."""
        consumer = self.consumer([QUEUE], f"{WORKER}:0")
        consumer.connect()
        self.client.zadd(keys.consumers(QUEUE), {consumer.name: 9e15})
        for place, name in enumerate(names):
            raw = writing.build(task=name, id=f"id-{place}", args=[], kwargs={}, queue=QUEUE, headers=headers)
            self.client.lpush(QUEUE, raw)
        turn = consumer.turn((), len(names))
        consumer.close()
        slot = self.table.slot(0)
        slot.words[slots.STATE], slot.words[slots.FIRST] = slots.BUSY, turn.leased[0].number
        for offset in range(started):
            slot.begin(turn.leased[0].number + offset, 1, 0, 0)

    def consumer(self, queues: list[str], name: str) -> Consumer:
        return Consumer(self.url, queues, name)

    def waiting(self) -> list[str]:
        """Ids in the queue, the next one out first."""
        return [json.loads(raw)["headers"]["id"] for raw in reversed(self.client.lrange(QUEUE, 0, -1))]

    def dead(self) -> dict[str, dict[str, Any]]:
        records = [json.loads(record) for record in self.client.hvals(keys.dead(QUEUE))]
        return {record["id"]: record for record in records}

    def settle_slot(self) -> None:
        consumer = self.consumer([QUEUE], f"{WORKER}:0")
        consumer.connect()
        settle_slot(self.judge, consumer, self.table.slot(0), "its process was killed")
        consumer.close()
        assert self.client.exists(keys.inflight(QUEUE, consumer.name)) == 0


@pytest.fixture
def left(redis_url: str, redis_client: redis.Redis, tmp_path: Path, app: Any) -> Iterator[Left]:
    judge = Judge(Runner(app.tasks, ACCEPT, "w@h", None), lambda queues: Settler(queues, Results()), MAX_DELIVERIES)
    table = Slots.create(tmp_path / "x.slots", Facts(WORKER, [QUEUE], digest(redis_url), [1]))
    yield Left(redis_url, redis_client, tmp_path, judge, table)
    table.let_go()


def test_what_was_not_started_goes_back_in_order(left: Left) -> None:
    left.client.lpush(QUEUE, writing.build(task="late", id="after", args=[], kwargs={}, queue=QUEUE))
    left.client.rpoplpush(QUEUE, "parked")
    left.hold("early", "late", "early", started=0)
    left.client.rpoplpush("parked", QUEUE)
    left.settle_slot()
    assert left.waiting() == ["id-0", "id-1", "id-2", "after"]
    assert left.dead() == {}


def test_what_was_started_goes_back_if_it_acknowledges_late_and_is_dead_otherwise(left: Left) -> None:
    left.hold("late", "early", "fails", "early", started=3)
    left.settle_slot()
    assert left.waiting() == ["id-0", "id-3"]
    assert set(left.dead()) == {"id-1", "id-2"}
    assert "killed" in left.dead()["id-1"]["reason"]
    (first, second) = (json.loads(raw)["headers"] for raw in reversed(left.client.lrange(QUEUE, 0, -1)))
    assert first[envelope.DELIVERIES] == 1
    assert envelope.DELIVERIES not in second


def test_a_message_that_was_lost_too_often_is_dead(left: Left) -> None:
    left.hold("late", started=1, **{envelope.DELIVERIES: MAX_DELIVERIES - 1})
    left.settle_slot()
    assert left.waiting() == []
    assert f"{MAX_DELIVERIES} times" in left.dead()["id-0"]["reason"]


def test_the_successor_settles_only_after_the_old_children_have_ended(left: Left) -> None:
    left.hold("late", "early", started=1)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as old:
        slot = left.table.slot(0)
        slot.words[slots.PID], slot.words[slots.TICKS] = old.pid, process.start_ticks(old.pid) or 0
        left.table.let_go()

        def consumer_after_the_end(queues: list[str], name: str) -> Consumer:
            assert not process.is_alive(process.ProcessId(old.pid, slot.words[slots.TICKS], process.boot_id()))
            return left.consumer(queues, name)

        assert settle_leftovers(left.folder, left.url, left.judge, consumer_after_the_end) == 2
    assert left.waiting() == ["id-0", "id-1"]
    assert list(left.folder.iterdir()) == []
    assert left.client.zcard(keys.consumers(QUEUE)) == 0


def test_the_file_of_a_worker_that_lives_is_left_alone(left: Left) -> None:
    left.hold("late", started=1)
    assert settle_leftovers(left.folder, left.url, left.judge, left.consumer) == 0
    assert left.waiting() == []


def test_a_child_that_inherited_the_file_does_not_keep_its_lock(left: Left) -> None:
    """The parent's lock is of a second open of the file: a child that lives on with the mapping does not hold it."""
    left.table.let_go()
    assert Slots.claim(left.table.path) is not None


def test_a_file_of_another_boot_does_not_count_and_the_lease_decides(left: Left, monkeypatch) -> None:
    left.hold("late", started=1)
    left.table.let_go()
    monkeypatch.setattr(slots, "boot_id", lambda: "another boot")
    assert settle_leftovers(left.folder, left.url, left.judge, left.consumer) == 0
    assert left.waiting() == []
    assert list(left.folder.iterdir()) == []


def test_of_a_host_that_is_gone_only_late_tasks_go_back(left: Left) -> None:
    left.hold("late", "early", started=0)
    left.client.zadd(keys.consumers(QUEUE), {f"{WORKER}:0": 1})
    consumer = left.consumer([QUEUE], f"{WORKER}:0")
    consumer.connect()
    assert take_over(left.judge, consumer, "its host was lost, the task may have started") == 2
    consumer.close()
    assert left.waiting() == ["id-0"]
    assert "may have started" in left.dead()["id-1"]["reason"]
    left.client.zrem(keys.consumers(QUEUE), f"{WORKER}:0")


def test_of_thousands_a_part_is_taken_over_at_a_time_and_their_order_kept(left: Left) -> None:
    left.hold(*["late"] * 2_500, started=0)
    left.client.zadd(keys.consumers(QUEUE), {f"{WORKER}:0": 1})
    consumer = left.consumer([QUEUE], f"{WORKER}:0")
    consumer.connect()
    parts = [take_over(left.judge, consumer, "its host was lost") for _ in range(4)]
    consumer.close()
    assert parts == [1_000, 1_000, 500, 0]
    assert left.waiting() == [f"id-{place}" for place in range(2_500)]
    assert left.client.llen(keys.lost(QUEUE)) == keys.LOST_CAP
    left.client.zrem(keys.consumers(QUEUE), f"{WORKER}:0")


def test_a_message_that_cannot_be_read_is_dead(left: Left) -> None:
    left.hold("late", started=0)
    left.client.hset(keys.inflight(QUEUE, f"{WORKER}:0"), "99", b"not a message")
    left.settle_slot()
    assert left.waiting() == ["id-0"]
    assert len(left.dead()) == 1


def test_what_had_ended_is_settled_as_it_had_ended(left: Left) -> None:
    """The child wrote down how its messages ended, and was killed before the broker had confirmed it."""
    left.hold("late", "early", "early", started=3)
    slot = left.table.slot(0)
    first = slot.words[slots.FIRST]
    slot.note(0, Settlement(0, first, ("R", "celery-task-meta-id-0", 60, b"done"), 1).noted())
    slot.note(1, Settlement(0, first + 1).noted())
    left.settle_slot()
    assert left.client.get("celery-task-meta-id-0") == b"done"
    assert left.waiting() == []
    assert set(left.dead()) == {"id-2"}


def test_a_success_that_leaves_nothing_is_settled_by_its_number_and_counted(left: Left, redis_url: str) -> None:
    left.hold("late", "early", "early", started=3)
    slot = left.table.slot(0)
    first = slot.words[slots.FIRST]
    slot.note_success(0, first + 1)
    slot.note(0, Settlement(0, first, ("R", "celery-task-meta-id-0", 60, b"done"), 1).noted())
    left.settle_slot()
    assert left.waiting() == []
    assert set(left.dead()) == {"id-2"}
    ended = {state: total.count for (_queue, _task, state), total in totals(Broker(redis_url), [QUEUE]).items()}
    assert ended["succeeded"] == 1


def test_a_full_notebook_leaves_the_rest_as_started(left: Left) -> None:
    slot = left.table.slot(0)
    slot.note(0, b"x" * (slots.NOTEBOOK - 100))
    slot.note(0, b"y" * 200)
    slot.note(0, b"z")
    for number in range(100):
        slot.note_success(0, number)
    (first, second, *numbers) = slot.notes()
    assert (first[:1], second[:1]) == (b"x", b"z")
    assert numbers == list(range(len(numbers)))
    assert len(numbers) < 100
    slot.wipe(0)
    assert list(slot.notes()) == []
