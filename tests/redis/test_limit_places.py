"""How many may run at once, and circuits that open and close, as the scripts keep them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from support.limits_world import QUEUE, World, numbered, of_user, opened

from opsq.broker.settlement import Settlement
from opsq.datastore import keys


@pytest.fixture
def world(redis_url: str, redis_client: redis.Redis) -> Iterator[World]:
    with opened(redis_url, redis_client) as made:
        yield made


# -- places ------------------------------------------------------------------------------------------------------------


def test_no_more_run_than_there_are_places_and_the_turn_that_frees_one_brings_the_next(world: World) -> None:
    world.task("t", max_concurrency=2)
    desk, other = world.desk(), world.desk(worker="w@other:33334444")
    world.send("t", *numbered(5))
    assert desk.lease(1) + other.lease(1) == ["m0", "m1"]
    assert desk.lease() == []
    other.end("m1")
    assert world.client.llen(QUEUE) == 1
    assert desk.lease() == ["m2"]
    desk.end("m0")
    desk.end("m2")
    assert other.lease() == ["m3", "m4"]
    other.end("m3")
    other.end("m4")
    assert world.is_empty()


def test_each_key_has_places_of_its_own(world: World) -> None:
    world.task("t", of_user, max_concurrency=1, concurrency_key="{user}")
    desk = world.desk()
    for user in ("ann", "ann", "ben"):
        world.send("t", f"{user}{world.client.llen(QUEUE)}", user=user)
    assert desk.lease() == ["ann0", "ben2"]
    desk.end("ben2")
    assert desk.lease() == []
    desk.end("ann0")
    assert desk.lease() == ["ann1"]


def test_who_is_no_longer_in_flight_holds_no_place(world: World) -> None:
    """Whoever settled it knew nothing of limits: the next look counts only what runs."""
    world.task("t", max_concurrency=1)
    desk = world.desk()
    world.send("t", *numbered(2))
    assert desk.lease() == ["m0"]
    assert desk.release()[0] == 0
    world.client.delete(desk.consumer.stores[0])
    world.client.zadd(keys.lanes(QUEUE), {"t": 0})  # as after some seconds
    assert desk.release()[0] == 1
    assert desk.lease() == ["m1"]


def test_one_that_goes_back_unstarted_frees_its_place_and_stays_first(world: World) -> None:
    world.task("t", max_concurrency=1)
    desk = world.desk()
    world.send("t", *numbered(3))
    assert desk.lease() == ["m0"]
    desk.back("m0")
    assert desk.lease() == ["m0"]


def test_queues_have_limits_too_and_both_hold(world: World) -> None:
    world.queue_limits = {QUEUE: {"max_concurrency": 2}}
    world.task("a", max_concurrency=1)
    world.task("b")
    desk = world.desk()
    world.send("a", "a1", "a2")
    world.send("b", "b1", "b2")
    assert desk.lease() == ["a1", "b1"]
    desk.end("b1")
    assert desk.lease() == ["b2"]
    desk.end("b2")
    assert desk.lease() == []
    desk.end("a1")
    assert desk.lease() == ["a2"]


def test_a_settlement_that_comes_twice_frees_one_place_only(world: World) -> None:
    world.task("t", max_concurrency=1)
    desk = world.desk()
    world.send("t", *numbered(3))
    assert desk.lease() == ["m0"]
    [(held, _message)] = desk.taken
    desk.end("m0")
    again = Settlement(0, held.number, word="succeeded", task="t")
    desk.settler.hand_in(again, desk.consumer.passes[0])
    assert desk.lease() == ["m1"]
    desk.consumer.turn([again], 0)
    assert desk.lease() == []
    assert world.client.zcard(keys.places("task:t")) == 1


def test_a_full_redis_can_drain(world: World) -> None:
    """What is moved takes no more room: limits work on, and nothing is lost."""
    world.task("t", max_concurrency=1)
    desk = world.desk()
    world.send("t", *numbered(4))
    world.client.config_set("maxmemory", "1")
    try:
        started = desk.lease()
        for _ in range(3):
            desk.end(started[-1])
            started += desk.lease()
        desk.end(started[-1])
    finally:
        world.client.config_set("maxmemory", "0")
    assert started == numbered(4)
    assert world.is_empty()


# -- circuits ----------------------------------------------------------------------------------------------------------


def changes(turn: Any) -> list[bytes]:
    return list(turn.changed)[1::3]


def test_a_circuit_opens_parks_probes_with_one_and_closes(world: World) -> None:
    world.task("t", circuit_breaker={"fail_max": 3, "reset_timeout": 0.15})
    desk = world.desk()
    world.send("t", *numbered(3))
    assert desk.lease() == numbered(3)
    assert [changes(desk.end(task_id, "failed")) for task_id in numbered(3)] == [[], [], [b"open"]]
    world.send("t", "n1", "n2", "n3")
    assert desk.lease() == []
    assert world.parked() == 3
    assert desk.release()[0] == 0
    time.sleep(0.16)
    assert desk.release()[0] == 1
    assert desk.lease() == ["n1"]
    assert desk.release()[0] == 0
    assert changes(desk.end("n1")) == [b"closed"]
    assert desk.lease() == ["n2", "n3"]


def test_a_probe_that_fails_opens_it_for_longer(world: World) -> None:
    world.task("t", circuit_breaker={"fail_max": 1, "reset_timeout": 0.1, "reset_timeout_max": 0.15})
    desk = world.desk()
    world.send("t", *numbered(3))
    assert desk.lease(1) == ["m0"]
    spans = []
    for task_id in numbered(3):
        turn = desk.end(task_id, "failed")
        spans.append(int(list(turn.changed)[2]))
        until = time.monotonic() + 2
        desk.lease()
        while task_id != "m2" and not desk.taken and time.monotonic() < until:
            desk.release()
            desk.lease(1)
    assert spans == [100, 150, 150]


def test_of_an_open_circuit_only_the_probe_decides(world: World) -> None:
    world.task("t", circuit_breaker={"fail_max": 1, "reset_timeout": 30})
    desk = world.desk()
    world.send("t", "slow", "fast", "next")
    desk.lease(2)
    assert changes(desk.end("fast", "failed")) == [b"open"]
    assert changes(desk.end("slow")) == []
    assert desk.lease() == []


def test_what_ends_well_in_between_starts_the_count_anew(world: World) -> None:
    world.task("t", circuit_breaker=2)
    desk = world.desk()
    world.send("t", *numbered(5))
    desk.lease()
    ends = ["failed", "succeeded", "retried", "ignored", "dead"]
    assert [changes(desk.end(id_, word)) for id_, word in zip(numbered(5), ends, strict=True)] == [[]] * 4 + [[b"open"]]


def test_a_probe_that_is_lost_makes_room_for_another(world: World) -> None:
    world.task("t", circuit_breaker={"fail_max": 1, "reset_timeout": 0.02})
    desk = world.desk()
    world.send("t", *numbered(3))
    desk.lease(1)
    desk.end("m0", "failed")
    time.sleep(0.03)
    assert desk.lease() == ["m1"]
    world.client.delete(desk.consumer.stores[0])  # lost, and nobody has settled it
    world.client.zadd(keys.lanes(QUEUE), {"t": 0})
    assert desk.release()[0] == 1
    assert desk.lease() == ["m2"]
