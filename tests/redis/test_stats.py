"""Counts: what came of how many messages is counted once for each, by the turn, whatever happens around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from opsq.broker import stats
from opsq.broker.broker import Broker
from opsq.broker.consumer import Consumer
from opsq.broker.settlement import Settlement
from opsq.broker.stats import Total
from opsq.datastore import keys
from opsq.worker.settle import Results, Settler

QUEUE = "celery"


@pytest.fixture
def consumer(redis_url: str, redis_client: redis.Redis) -> Iterator[Consumer]:
    redis_client.zadd(keys.consumers(QUEUE), {"w@h:11112222:0": 9e15})
    consumer = Consumer(redis_url, [QUEUE], "w@h:11112222:0")
    consumer.connect(track=True)
    yield consumer
    consumer.close()


@pytest.fixture
def lease(consumer: Consumer, redis_client: redis.Redis) -> Callable[[int], list[int]]:
    """`lease(n)` has the consumer hold n more messages; returns their numbers."""

    def take(count: int) -> list[int]:
        redis_client.lpush(QUEUE, *[b"m%d" % i for i in range(count)])
        return [leased.number + i for leased in consumer.turn((), count).leased for i in range(len(leased.messages))]

    return take


def ended(number: int, word: Any = "succeeded", task: str = "t.add", seconds: float = 0.0) -> Settlement:
    return Settlement(0, number, word=word, task=task, runtime_s=seconds)


def test_a_turn_counts_by_task_and_state_what_it_settles(consumer, lease, redis_url) -> None:
    broker = Broker(redis_url)
    first, *more, last = lease(1200)
    written = Settlement(0, last, ("R", "celery-task-meta-x", 60, b"r"), 1, "failed", "t.add", 0.5)
    consumer.turn([ended(first, task="t.other"), *(ended(number, seconds=0.001) for number in more), written], 0)
    assert stats.totals(broker, [QUEUE, "none"]) == {
        (QUEUE, "t.other", "succeeded"): Total(1, 0.0),
        (QUEUE, "t.add", "succeeded"): Total(1198, pytest.approx(1.198)),
        (QUEUE, "t.add", "failed"): Total(1, 0.5),
    }
    minutes = stats.by_minute(broker, QUEUE, 3)
    assert [minute.unix_minute for minute in minutes] == [minutes[0].unix_minute + i for i in range(3)]
    assert sum(minute.counts.get("succeeded", 0) for minute in minutes) == 1199
    assert sum(minute.counts.get("failed", 0) for minute in minutes) == 1
    assert sum(minute.runtime_s for minute in minutes) == pytest.approx(1.698)


def test_what_was_settled_before_or_taken_over_is_not_counted_again(consumer, lease, redis_url) -> None:
    numbers = lease(4)
    settled = [ended(number, seconds=1.0) for number in numbers[:2]]
    late = Settlement(0, numbers[0], ("L", "other", b"next"), 1, "failed", "t.add", 1.0)
    consumer.turn(settled, 0)
    consumer.turn([*settled, late, ended(numbers[2], seconds=1.0)], 0)
    assert stats.totals(Broker(redis_url), [QUEUE]) == {(QUEUE, "t.add", "succeeded"): Total(3, 3.0)}


def test_a_message_whose_writes_fail_is_counted_only_when_it_is_settled(
    consumer, lease, redis_url, redis_client
) -> None:
    (number,) = lease(1)
    redis_client.set("celery-task-meta-blocked", "no list")
    trouble = Settlement(0, number, ("L", "celery-task-meta-blocked", b"next"), 1, "retried", "t.add")
    assert consumer.turn([trouble], 0).failed
    assert stats.totals(Broker(redis_url), [QUEUE]) == {}
    redis_client.delete("celery-task-meta-blocked")
    letter = Settler([QUEUE], Results()).broken(0, number, QUEUE, b"m0", ValueError("bad"))  # type: ignore[arg-type]
    consumer.turn([letter], 0)
    assert stats.totals(Broker(redis_url), [QUEUE]) == {(QUEUE, "", "dead"): Total(1, 0.0)}


def test_totals_have_a_cap_and_nothing_is_left_uncounted(consumer, lease, redis_url, redis_client, monkeypatch) -> None:
    monkeypatch.setattr(keys, "TOTALS_CAP", 3)
    for number in lease(10):
        consumer.turn([ended(number, task=f"t.{number % 1000}", seconds=0.25)], 0)
    found = stats.totals(Broker(redis_url), [QUEUE])
    assert sorted(task for _queue, task, _state in found)[0] == "(other)"
    assert len(found) == 4
    assert sum(total.count for total in found.values()) == 10
    assert sum(total.runtime_s for total in found.values()) == 2.5
    assert redis_client.hlen(keys.totals(QUEUE)) == 9 + 1  # and how many were taken


def test_counting_wakes_no_waiter(consumer, lease, redis_client) -> None:
    """What an armed turn counts must not arm a notice that the next count of anybody fires."""
    (number,) = lease(1)
    armed = consumer.turn([ended(number)], 1, armed=True)
    assert not armed.leased
    redis_client.hincrby(keys.totals(QUEUE), "n:succeeded:t.add", 1)
    for key in redis_client.keys("opsq:stats:*"):
        redis_client.hincrby(key, "1:us", 1)
    assert redis_client.ping()
    assert not consumer.readable(0.05)
    redis_client.lpush(QUEUE, b"new")
    assert consumer.readable(5)


def test_a_key_in_the_way_of_the_counts_hurts_no_message(consumer, lease, redis_client) -> None:
    (number,) = lease(1)
    redis_client.set(keys.totals(QUEUE), "in the way")
    turn = consumer.turn([ended(number, seconds=1.0)], 0)
    assert (turn.failed, turn.held) == ({}, 0)
    redis_client.delete(keys.totals(QUEUE))
