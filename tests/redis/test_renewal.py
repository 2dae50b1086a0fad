"""A renewal of leases: they end by the server's clock, also when that leaps, and the answers tell who is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from opsq import _state
from opsq.datastore import keys
from opsq.datastore.priorities import PRIORITIES
from opsq.datastore.server_time import in_ms
from opsq.worker.broker_clock import BrokerClock
from opsq.worker.post import Post
from opsq.worker.renewal import Renewal, Standing
from opsq.worker.slots import Facts, Slots

LEASE_S = 15.0
ME = "w@h:0badcafe"


def post(*queues: str, worker_id: str = ME) -> Post:
    return Post("", worker_id, list(queues), LEASE_S, "", PRIORITIES, Path())


def server_ms(client: redis.Redis) -> int:
    answer: Any = client.time()
    return in_ms(answer)


def renew(client: redis.Redis, of: Post, consumers: Sequence[Sequence[int]], now_ms: int | None = None) -> Standing:
    renewal = Renewal(of, consumers, server_ms(client) if now_ms is None else now_ms)
    return renewal.read([client.execute_command(*command) for command in renewal.commands])


def test_each_consumer_and_the_worker_have_a_lease_from_now_on(redis_client: redis.Redis) -> None:
    begin = server_ms(redis_client)
    standing = renew(redis_client, post("a", "b"), [[0, 2], []])
    registries: list[Any] = [
        redis_client.zrange(name, 0, -1, withscores=True) for name in (keys.consumers("a"), keys.WORKERS)
    ]
    ends = {name: end for registry in registries for name, end in registry}
    assert set(ends) == {f"{ME}:0".encode(), f"{ME}:2".encode(), ME.encode()}
    for end in ends.values():
        assert begin + LEASE_S * 1000 <= end <= server_ms(redis_client) + LEASE_S * 1000
    assert redis_client.zcard(keys.consumers("b")) == 0
    assert (standing.held, standing.expired, standing.gone) == ([[0, 0], []], [[], []], [])
    assert begin / 1000 <= standing.time_s <= server_ms(redis_client) / 1000 + 0.001


def test_it_tells_what_each_consumer_holds_who_is_gone_and_how_many_there_are(redis_client: redis.Redis) -> None:
    long_ago = server_ms(redis_client) - 60_000
    renew(redis_client, post("a", worker_id="gone@h:1"), [[0]], long_ago)
    for number in range(3):
        renew(redis_client, post("a", worker_id=f"there@h:{number}"), [[0]])
    for number in range(2):
        redis_client.hset(keys.inflight("a", f"{ME}:1"), str(number), b"message")
    standing = renew(redis_client, post("a", "b"), [[0, 1], [0]])
    assert standing.held == [[0, 2], [0]]
    assert standing.expired == [[b"gone@h:1:0"], []]
    assert standing.gone == [b"gone@h:1"]
    assert (standing.crowd, standing.fewest) == (5, 1)


def test_what_the_server_refuses_is_raised(redis_client: redis.Redis) -> None:
    renewal = Renewal(post("a"), [[0]], server_ms(redis_client))
    with pytest.raises(redis.ResponseError, match="maxmemory"):
        renewal.read([(b"1", b"0"), redis.ResponseError("OOM command not allowed: maxmemory"), 0, [], 1, 1, [], 1])


@pytest.fixture
def clock() -> Iterator[BrokerClock]:
    """It sets the clock by which this process goes, too."""
    yield BrokerClock(Slots.private(Facts(ME, ["a"], "", [1])))
    _state.set_broker_epoch(0.0)


@pytest.mark.parametrize("leap_s", [3600.0, -3600.0, 0.2])
def test_after_a_leap_of_the_servers_clock_leases_are_reckoned_by_it_again(clock: BrokerClock, leap_s: float) -> None:
    sent = time.monotonic()
    assert not clock.told(sent, 1_000_000.0), "nothing was known before"
    assert clock.told(sent, 1_000_000.0)
    assert clock.reckoned_ms(sent + 5.0) >= 1_000_005_000
    assert not clock.told(time.monotonic(), 1_000_000.0 + time.monotonic() - sent + leap_s), "what was reckoned is off"
    now = time.monotonic()
    assert abs(clock.reckoned_ms(now) - (1_000_000.0 + now - sent + leap_s) * 1000) < 50


def test_a_slow_answer_ends_no_lease_too_early(clock: BrokerClock) -> None:
    """The server may have looked at its clock at any moment until the answer came."""
    sent = time.monotonic() - 2.0
    clock.told(sent, 1_000_002.0)
    assert clock.reckoned_ms(sent + 2.0) >= 1_000_002_000
