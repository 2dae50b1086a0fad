"""Who was taken for lost and speaks after all takes its dead letters back, and tells how its tasks ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from support.lab import message, new_id

from opsq import App
from opsq.broker.consumer import Consumer
from opsq.broker.settlement import Settlement
from opsq.datastore import keys
from opsq.execution.runner import Runner
from opsq.worker.ledger import Ledger
from opsq.worker.settle import Results, Settler
from opsq.worker.slots import Facts, Slots
from opsq.worker.successor import Judge, take_over

NAME = "lost@h:0badcafe:0"
DEAD, DEAD_INDEX = keys.dead("celery"), keys.dead_index("celery")
TAKEN = keys.taken("celery", NAME)


@pytest.fixture
def judge(redis_url: str) -> Judge:
    app = App("proj", broker=redis_url, backend=redis_url, set_as_current=False)

    @app.task(name="proj.nap", shared=False)
    def nap() -> None: ...

    @app.task(name="proj.late", acks_late=True, shared=False)
    def late() -> None: ...

    runner = Runner(app.tasks, frozenset({"application/json"}), "peer@h", app.backend.record)
    return Judge(runner, lambda queues: Settler(queues, Results(database=0)))


@pytest.fixture
def ledger(redis_url: str, redis_client: redis.Redis, tmp_path: Path) -> Iterator[Ledger]:
    """The books of the consumer that is taken for lost; its lease has run out."""
    redis_client.zadd(keys.consumers("celery"), {NAME: 1})
    table = Slots.create(tmp_path / "x.slots", Facts("lost@h:0badcafe", ["celery"], "", [1]))
    consumer = Consumer(redis_url, ["celery"], NAME, results_db=0)
    ledger = Ledger(consumer, Settler(["celery"], Results(database=0)), table.slot(0))
    ledger.reconnect()
    yield ledger
    consumer.close()
    table.let_go()


@pytest.fixture
def bury(redis_url: str, judge: Judge) -> Callable[[], None]:
    """A peer takes over what the consumer holds."""

    def take() -> None:
        peer = Consumer(redis_url, ["celery"], NAME, results_db=0)
        peer.connect()
        take_over(judge, peer, "h was lost, the task may have started")
        peer.close()

    return take


def leased(ledger: Ledger, client: redis.Redis, *raws: bytes) -> list[int]:
    """The numbers of messages that the consumer holds now."""
    client.lpush("celery", *raws)
    ledger.send(len(raws))
    ledger.receive()
    return [held.number for held in ledger.waiting]


def counts(client: redis.Redis) -> dict[str, int]:
    """The books of the queue: how many ended how, by the totals and by the minute."""
    found: Any = client.hgetall(keys.totals("celery"))
    totals = {
        name.decode(): int(value) for name, value in found.items() if name.startswith((b"n:", b"taken", b"moved"))
    }
    by_minute: dict[str, int] = {}
    for key in client.scan_iter(keys.stats("celery") + ":*"):
        minutes: Any = client.hgetall(key)
        for name, value in minutes.items():
            state = name.decode().partition(":")[2]
            by_minute[state] = by_minute.get(state, 0) + int(value)
    for state in ("dead", "succeeded"):
        of_all_tasks = sum(value for name, value in totals.items() if name.startswith(f"n:{state}:"))
        assert by_minute.get(state, 0) == of_all_tasks
    return {name: value for name, value in totals.items() if value}


def result(value: str) -> tuple[Any, ...]:
    return ("R", keys.result("an-id"), 60, json.dumps({"status": "SUCCESS", "result": value}).encode())


@pytest.mark.parametrize("how", ["alone", "with a result", "with more"])
def test_the_true_outcome_takes_the_place_of_the_dead_letter(ledger, redis_client, bury, how) -> None:
    ids = [new_id() for _ in range(2)]
    first, second = leased(ledger, redis_client, *[message("nap", each) for each in ids])
    bury()
    assert redis_client.hlen(DEAD) == 2
    assert counts(redis_client) == {"n:dead:proj.nap": 2, "taken": 2}
    writes: dict[str, tuple[Any, ...]] = {
        "alone": (),
        "with a result": result("true"),
        "with more": (*result("true"), "L", "next", b"the next one"),
    }
    count = {"alone": 0, "with a result": 1, "with more": 2}[how]
    ledger.waiting.clear()
    ledger.settle(Settlement(0, first, writes[how], count, "succeeded", "proj.nap"))
    ledger.send(0)
    ledger.receive()
    assert [each.decode() for each in redis_client.hkeys(DEAD)] == [ids[1]]
    assert redis_client.zcard(DEAD_INDEX) == 1
    assert counts(redis_client) == {"n:dead:proj.nap": 1, "n:succeeded:proj.nap": 1, "taken": 2}
    if how != "alone":
        assert b"true" in redis_client.get(keys.result("an-id"))
    if how == "with more":
        assert redis_client.lrange("next", 0, -1) == [b"the next one"]
    ledger.settle(Settlement(0, first, writes[how], count, "succeeded", "proj.nap"))
    ledger.send(0)
    ledger.receive()
    assert counts(redis_client)["n:succeeded:proj.nap"] == 1, "told twice, written once"
    assert redis_client.llen("next") == (1 if how == "with more" else 0)
    assert second


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("by", ["drop", "requeue", "again"])
def test_what_an_operator_has_decided_stays(ledger, redis_client, bury, by, count) -> None:
    task_id = new_id()
    (number,) = leased(ledger, redis_client, message("nap", task_id))
    bury()
    letter = redis_client.hget(DEAD, task_id)
    redis_client.hdel(DEAD, task_id)
    redis_client.zrem(DEAD_INDEX, task_id)
    if by == "requeue":
        redis_client.lpush("celery", json.loads(letter)["message"])
    if by == "again":  # it was sent again, and died again
        redis_client.hset(DEAD, task_id, b'{"id": "another"}')
        redis_client.zadd(DEAD_INDEX, {task_id: 1})
    before = redis_client.hgetall(DEAD), redis_client.lrange("celery", 0, -1), counts(redis_client)
    ledger.waiting.clear()
    writes = result("not heard") if count else ()
    ledger.settle(Settlement(0, number, writes, count, "succeeded", "proj.nap"))
    ledger.send(0)
    ledger.receive()
    assert (redis_client.hgetall(DEAD), redis_client.lrange("celery", 0, -1), counts(redis_client)) == before
    assert redis_client.get(keys.result("an-id")) is None
    redis_client.delete("celery")


def test_what_was_given_to_somebody_else_is_theirs(ledger, redis_client, bury) -> None:
    """A task that acknowledges late is in its queue again: what the first one says of it is not heard."""
    (number,) = leased(ledger, redis_client, message("late", new_id()))
    bury()
    assert redis_client.llen("celery") == 1
    assert redis_client.exists(TAKEN) == 0
    ledger.waiting.clear()
    ledger.settle(Settlement(0, number, result("not heard"), 1, "succeeded", "proj.late"))
    ledger.send(0)
    ledger.receive()
    assert redis_client.llen("celery") == 1
    assert redis_client.get(keys.result("an-id")) is None
    redis_client.delete("celery")


def test_what_had_not_been_started_goes_back_to_its_queue_in_order(ledger, redis_client, bury) -> None:
    raws = [message("nap", new_id()) for _ in range(3)]
    running, *_waiting = leased(ledger, redis_client, *raws)
    ledger.waiting.popleft()
    ledger._slot.begin(running, 1, 0, 0)
    bury()
    assert redis_client.hlen(DEAD) == 3
    redis_client.lpush("celery", b"sent later")
    ledger.compare()
    assert not ledger.waiting
    ledger.send(0)
    ledger.receive()
    assert redis_client.lrange("celery", 0, -1) == [b"sent later", raws[2], raws[1]]
    assert redis_client.hlen(DEAD) == 1
    assert not ledger.doubt
    assert counts(redis_client) == {"n:dead:proj.nap": 1, "moved": 2, "taken": 3}
    redis_client.delete("celery")


def test_an_outcome_that_cannot_be_written_leaves_the_dead_letter(ledger, redis_client, bury) -> None:
    (number,) = leased(ledger, redis_client, message("nap", new_id()))
    bury()
    redis_client.set("next", "no list")
    ledger.waiting.clear()
    ledger.settle(Settlement(0, number, ("L", "next", b"the next one"), 1, "succeeded", "proj.nap"))
    ledger.send(0)
    ledger.receive()
    assert redis_client.hlen(DEAD) == 1
    redis_client.delete("next")
    ledger.send(0)
    ledger.receive()
    assert redis_client.hlen(DEAD) == 0
    assert redis_client.lrange("next", 0, -1) == [b"the next one"]
    redis_client.delete("next")


def test_it_is_remembered_for_a_while_only(ledger, redis_client, bury) -> None:
    leased(ledger, redis_client, message("nap", new_id()))
    bury()
    assert 0 < redis_client.ttl(TAKEN) <= keys.TAKEN_S
    ledger.waiting.clear()
