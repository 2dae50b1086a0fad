"""The profile of tasks: what the turn counted of durations, CPU and memory is what the runs took."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from resource import RUSAGE_SELF, getrusage
from typing import Any

import pytest
import redis

from opsq.broker import profile
from opsq.broker.broker import Broker
from opsq.broker.consumer import Consumer
from opsq.broker.settlement import Settlement
from opsq.datastore import keys

QUEUE = "celery"


@pytest.fixture
def consumer(redis_url: str, redis_client: redis.Redis) -> Iterator[Consumer]:
    redis_client.zadd(keys.consumers(QUEUE), {"w@h:11112222:0": 9e15})
    consumer = Consumer(redis_url, [QUEUE], "w@h:11112222:0")
    consumer.connect(track=True)
    yield consumer
    consumer.close()


@pytest.fixture
def run(consumer: Consumer, redis_client: redis.Redis) -> Callable[..., None]:
    """`run((task, seconds), ...)` settles runs in one turn."""

    def settle(*runs: tuple[str, float], word: Any = "succeeded") -> None:
        redis_client.lpush(QUEUE, *[b"m"] * len(runs))
        leased = consumer.turn((), len(runs)).leased
        numbers = [each.number + i for each in leased for i in range(len(each.messages))]
        ended = [
            Settlement(0, number, word=word, task=task, runtime_s=seconds)
            for number, (task, seconds) in zip(numbers, runs, strict=True)
        ]
        consumer.turn(ended, 0)

    return settle


def read(url: str) -> dict[str, profile.Profile]:
    return {each.task: each for each in profile.read(Broker(url), [QUEUE])}


def test_half_and_ninety_nine_percent_are_told_within_a_tenth(run, redis_url: str) -> None:
    durations = [0.001 * (number + 1) for number in range(1000)]
    random.Random(1).shuffle(durations)
    for at in range(0, 1000, 10):
        run(*[("t.a", seconds) for seconds in durations[at : at + 10]])
    found = read(redis_url)["t.a"]
    assert found.runs == 1000
    assert found.p50_s == pytest.approx(0.5, rel=0.1)
    assert found.p99_s == pytest.approx(0.99, rel=0.1)


def test_of_a_large_turn_some_runs_stand_for_all(run, redis_url: str, redis_client: redis.Redis) -> None:
    for _ in range(20):
        run(*[("t.fast", 20e-6) if number % 4 else ("t.slow", 2e-3) for number in range(480)])
    found = read(redis_url)
    assert (found["t.fast"].runs, found["t.slow"].runs) == (7200, 2400)
    assert found["t.fast"].p50_s == pytest.approx(20e-6, rel=0.1)
    assert found["t.slow"].p50_s == pytest.approx(2e-3, rel=0.1)
    fields: Any = redis_client.hgetall(next(iter(redis_client.scan_iter("opsq:profile:*"))))
    assert len(fields) < 10  # however many runs there were


def test_what_never_ran_has_no_profile(run, redis_url: str) -> None:
    run(("t.a", 0.0), word="expired")
    assert read(redis_url) == {}


def test_a_profile_ends_by_itself(run, redis_client: redis.Redis) -> None:
    run(("t.a", 0.1))
    (key,) = redis_client.scan_iter("opsq:profile:*")
    assert 7 * 86_400 < int(redis_client.ttl(key)) <= 8 * 86_400  # type: ignore[arg-type]


def test_runs_that_another_has_settled_are_not_counted_again(consumer, redis_client, redis_url) -> None:
    redis_client.lpush(QUEUE, b"m")
    number = consumer.turn((), 1).leased[0].number
    ended = Settlement(0, number, word="succeeded", task="t.a", runtime_s=0.1)
    consumer.turn([ended], 0)
    consumer.turn([ended], 0)
    assert read(redis_url)["t.a"].runs == 1


def test_cpu_time_is_that_of_the_batch_by_the_time_each_task_took(consumer, run, redis_url: str) -> None:
    consumer.costs.begin()
    for number in range(200_000):
        str(number)
    consumer.costs.end()
    run(("t.a", 0.3), ("t.b", 0.1))
    found = read(redis_url)
    assert found["t.a"].cpu_s > 0.002
    assert found["t.a"].cpu_s == pytest.approx(3 * found["t.b"].cpu_s, rel=0.01)
    run(("t.a", 0.3))  # costs are told once
    assert read(redis_url)["t.a"].cpu_s == pytest.approx(found["t.a"].cpu_s / 2)


def test_growth_is_that_of_the_task_that_took_the_most_time(consumer, run, redis_url: str) -> None:
    consumer.costs.begin()
    peak, held = getrusage(RUSAGE_SELF).ru_maxrss, []
    while getrusage(RUSAGE_SELF).ru_maxrss < peak + 1024:  # what ran before in this process may have held more
        held.append(bytearray(b"x" * 8_000_000))
    consumer.costs.end()
    run(("t.big", 0.3), ("t.small", 0.001))
    assert held
    found = read(redis_url)
    assert (found["t.big"].growth > 0, found["t.small"].growth) == (True, 0)
