"""From which queue is taken first, and how much: in turn, in a strict order, by weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis

from opsq.broker.consumer import Consumer
from opsq.broker.order import QueueOrder
from opsq.broker.settlement import Settlement
from opsq.datastore import keys
from opsq.datastore.priorities import PRIORITIES
from opsq.exceptions import ImproperlyConfigured

Make = Callable[..., Consumer]
QUEUES = ("mail", "slow", "rest")


@pytest.fixture
def make(redis_url: str, redis_client: redis.Redis) -> Iterator[Make]:
    """A connected consumer of the three queues, in this order of taking."""
    made: list[Consumer] = []

    def build(wanted: Any) -> Consumer:
        order, queues = QueueOrder.of(wanted, None, list(QUEUES))
        consumer = Consumer(redis_url, queues, "w@h:11112222:0", order=order)
        for queue in queues:
            redis_client.zadd(keys.consumers(queue), {consumer.name: 9e15})
        consumer.connect()
        consumer.turn((), 0)  # the server knows the script from now on
        made.append(consumer)
        return consumer

    yield build
    for consumer in made:
        consumer.close()


def fill(client: redis.Redis, count: int, queues: Sequence[str] = QUEUES, step: int = 0) -> None:
    for queue in queues:
        client.lpush(PRIORITIES.at_step(queue, step), *[f"{queue}{number}" for number in range(count)])


def take(consumer: Consumer, want: int, turns: int, ahead: bool = False) -> Counter[str]:
    """How many messages of each queue come with so many turns; `ahead`: each is sent before the last is answered."""
    found: Counter[str] = Counter()
    done: list[Settlement] = []
    sent = 0
    for _ in range(turns):
        while sent < 1 + ahead:
            consumer.send(done, want)
            done, sent = [], sent + 1
        turn = consumer.receive()
        sent -= 1
        for leased in turn.leased:
            found[consumer.queues[leased.queue]] += len(leased.messages)
            done += [Settlement(leased.queue, leased.number + index) for index in range(len(leased.messages))]
    while sent:
        consumer.receive()
        sent -= 1
    return found


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("want", [1, 7, 100, 500])
def test_weights_hold_over_some_thousand_messages(
    make: Make, redis_client: redis.Redis, want: int, ahead: bool
) -> None:
    fill(redis_client, 4000)
    found = take(make({"mail": 5, "slow": 2}), want, 4000 // want, ahead)
    total = sum(found.values())
    assert total >= 3500
    for queue, weight in (("mail", 5), ("slow", 2), ("rest", 1)):
        assert found[queue] / total == pytest.approx(weight / 8, abs=0.02)


def test_what_one_queue_leaves_the_others_get_and_nothing_is_saved_up(make: Make, redis_client: redis.Redis) -> None:
    consumer = make({"mail": 8, "slow": 1, "rest": 1})
    fill(redis_client, 3000, ["slow"])
    assert take(consumer, 100, 20) == {"slow": 2000}
    fill(redis_client, 2000, ["mail", "rest"])
    first = take(consumer, 100, 4)
    assert first["mail"] > first["slow"]
    after = take(consumer, 100, 10)
    assert after["mail"] / after.total() == pytest.approx(0.8, abs=0.03)
    assert after["slow"] / after.total() == pytest.approx(0.1, abs=0.03)


def test_a_strict_order_starves(make: Make, redis_client: redis.Redis) -> None:
    consumer = make("strict")
    fill(redis_client, 1000)
    for _ in range(20):
        assert take(consumer, 50, 1) == {"mail": 50}
        fill(redis_client, 50, ["mail"])
    assert take(consumer, 100, 10) == {"mail": 1000}
    assert take(consumer, 100, 10) == {"slow": 1000}


def test_in_turn_each_queue_comes_first_once(make: Make, redis_client: redis.Redis) -> None:
    fill(redis_client, 300)
    assert take(make("fair"), 20, 30) == {"mail": 200, "slow": 200, "rest": 200}


@pytest.mark.parametrize("wanted", ["fair", "strict", {"rest": 9}])
def test_what_is_more_urgent_comes_first_in_whatever_queue(make: Make, redis_client: redis.Redis, wanted: Any) -> None:
    fill(redis_client, 100, ["mail", "rest"], step=6)
    fill(redis_client, 100, ["slow"])
    consumer = make(wanted)
    assert take(consumer, 50, 2) == {"slow": 100}
    assert take(consumer, 50, 8).total() >= 200


def test_kombus_strategies_are_understood() -> None:
    assert QueueOrder.of(None, "priority", ["b", "a"]) == (QueueOrder("strict"), ["b", "a"])
    assert QueueOrder.of(None, "sorted", ["b", "a"]) == (QueueOrder("strict"), ["a", "b"])
    assert QueueOrder.of(None, "round_robin", ["b", "a"]) == QueueOrder.of(None, None, ["b", "a"])
    assert QueueOrder.of("fair", "priority", ["b"])[0] == QueueOrder("fair")


@pytest.mark.parametrize("wrong", ["random", {"mail": 0}, {"mail": 1.5}, 3])
def test_an_order_that_is_none_is_an_error_that_says_so(wrong: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="cannot use worker_queue_order"):
        QueueOrder.of(wrong, None, ["mail"])
