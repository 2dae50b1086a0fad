"""Rates as the scripts keep them, against a model; limits as people say and see them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from support.limits_world import QUEUE, World, nothing, numbered, of_user, opened
from support.redis_server import RedisServer

from opsq import Celery
from opsq.broker import limited as looking
from opsq.broker.broker import Broker
from opsq.broker.limits import EARLY_US, rate_per_second
from opsq.datastore import keys
from opsq.exceptions import ImproperlyConfigured
from opsq.protocol.envelope import parse
from opsq.worker.batch import Held
from opsq.worker.limit_options import Ruling
from opsq.worker.limits import Policy


@pytest.fixture
def world(redis_url: str, redis_client: redis.Redis) -> Iterator[World]:
    with opened(redis_url, redis_client) as made:
        yield made


# -- rates -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "rate"),
    [("100/s", 100), ("10/m", 1 / 6), ("1/h", 1 / 3600), ("5", 5), (2.5, 2.5), (None, 0), (0, 0), ("0/m", 0), ("", 0)],
)
def test_rates_are_read_as_celery_reads_them(said: Any, rate: float) -> None:
    assert rate_per_second(said) == pytest.approx(rate)


@pytest.mark.parametrize("said", ["fast", "10/d", "-1/s", "nan", "inf/s", True, "1/s/s"])
def test_what_is_no_rate_is_refused(said: Any) -> None:
    with pytest.raises(ValueError):
        rate_per_second(said)


class Model:
    """GCRA in a few lines: how many of those that ask at a time may start."""

    def __init__(self, rate: float) -> None:
        self.interval_us, self.due_us = max(round(1e6 / rate), 1), 0.0

    def may(self, now_us: float) -> int:
        early = now_us + EARLY_US - max(self.due_us, now_us)
        return math.floor(early / self.interval_us) + 1 if early >= 0 else 0


@settings(max_examples=25)
@given(
    rate=st.sampled_from([3, 20, 90, 400, 5000]),
    steps=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 25)), min_size=1, max_size=8),
)
def test_the_script_admits_what_the_model_does(
    redis_server: RedisServer, rate: int, steps: list[tuple[int, int]]
) -> None:
    with redis_server.client() as client:
        client.flushall()
        world = World(redis_server.url(), client)
        world.task("t", rate_limit=rate, rate_limit_scope="cluster")
        model, sent = Model(rate), 0
        desk = world.desk()
        for count, pause_ms in steps:
            client.delete(QUEUE, *client.scan_iter("opsq:lim*"), *client.scan_iter("opsq:lane*"))
            world.send("t", *numbered(count, sent))
            sent += count
            before = time.time() * 1e6
            admitted = len(desk.lease())
            after = time.time() * 1e6
            assert min(model.may(before), count) <= admitted <= min(model.may(after), count)
            stored: Any = client.get(keys.rate("task:t"))
            if admitted:
                spans = [max(model.due_us, moment) + admitted * model.interval_us for moment in (before, after)]
                assert spans[0] - 1 <= float(stored) <= spans[1] + 1
                model.due_us = float(stored)
            time.sleep(pause_ms / 1000)
        desk.close()


def test_the_first_call_starts_at_once_and_the_others_wait_in_order(world: World) -> None:
    world.task("t", rate_limit="10/s")
    desk = world.desk()
    world.send("t", *numbered(5))
    assert desk.lease() == ["m0"]
    assert world.parked() == 4
    assert desk.release()[0] == 0
    started = ["m0"]
    while len(started) < 5:
        _moved, again_s = desk.release()
        started += desk.lease()
        time.sleep(max(again_s or 0, 0.001))
    assert started == numbered(5)
    for task_id in started:
        desk.end(task_id)
    desk.release()
    assert world.is_empty()


def test_asking_again_changes_nothing(world: World) -> None:
    """The answer was lost: the batch is looked at again."""
    world.task("t", rate_limit="1/h")
    desk = world.desk()
    world.send("t", *numbered(3))
    desk.lease()
    [(held, message)] = desk.taken
    due = world.client.get(keys.rate("task:t@w@h:11112222"))
    assert desk.admission.look([(held, message)]) == {}
    assert world.client.get(keys.rate("task:t@w@h:11112222")) == due
    assert world.parked() == 2


def test_what_was_taken_over_meanwhile_may_not_run(world: World) -> None:
    world.task("t", rate_limit="1/s")
    desk = world.desk()
    world.send("t", "m0")
    turn = desk.consumer.turn((), 1)
    held = Held(turn.leased[0].number, 0, QUEUE, turn.leased[0].messages[0])
    world.client.delete(desk.consumer.stores[0])
    assert list(desk.admission.look([(held, parse(held.raw))])) == [held.number]
    assert not world.parked()


def test_a_worker_alone_or_the_whole_cluster(world: World) -> None:
    world.task("own", rate_limit="1/h")
    world.task("all", rate_limit="1/h", rate_limit_scope="cluster")
    first, second = world.desk(), world.desk(worker="w@other:33334444")
    world.send("own", "o1", "o2", "o3")
    assert [first.lease(1), second.lease(1)] == [["o1"], ["o2"]]
    world.send("all", "a1", "a2")
    assert first.lease(2) == ["a1"]
    assert second.lease(1) == []


def test_each_key_has_the_rate_for_itself(world: World) -> None:
    world.task("t", of_user, rate_limit="1/h", rate_limit_key="{user}")
    desk = world.desk()
    for user in ("ann", "ben", "ann", "ben", "eve"):
        world.send("t", f"{user}{world.client.llen(QUEUE)}", user=user)
    assert desk.lease() == ["ann0", "ben1", "eve4"]
    assert world.parked() == 2


def test_a_function_may_say_what_the_key_is_and_a_broken_one_gives_all_the_same(world: World, caplog) -> None:
    world.task("t", nothing, rate_limit="1/h", rate_limit_key=lambda n: "even" if n % 2 == 0 else 1 / 0)
    desk = world.desk()
    for n in range(4):
        world.send("t", f"n{n}", n=n)
    assert desk.lease() == ["n0", "n1"]
    assert "rate_limit_key of t cannot be told: ZeroDivisionError" in caplog.text


# -- what people see, and what they may not write ----------------------------------------------------------------------


def test_how_limits_stand_can_be_seen(world: World) -> None:
    world.task("rate", rate_limit="1/h", rate_limit_scope="cluster")
    world.task("places", max_concurrency=3)
    world.task("circuit", circuit_breaker=1)
    desk = world.desk()
    for name, told in desk.policy.registry().items():
        world.client.hset(keys.LIMITS, name, json.dumps(told))
    world.send("rate", "r1", "r2", "r3")
    world.send("places", "p1")
    world.send("circuit", "c1")
    desk.lease()
    desk.end("c1", "failed")
    found = {state.name: state for state in looking.states(Broker(world.url), [QUEUE])}
    assert found["rate"].waiting == 2
    assert found["places"].running == 1
    assert found["circuit"].circuit == "open"
    assert 29 < (found["circuit"].open_s or 0) <= 30


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rate_limit": "10/d"}, "rate_limit = '10/d'"),
        ({"rate_limit": "1/s", "rate_limit_scope": "world"}, "rate_limit_scope = 'world'"),
        ({"rate_limit": "1/s", "rate_limit_key": "{nobody}"}, "no argument 'nobody'"),
        ({"rate_limit": "1/s", "rate_limit_key": "{"}, "rate_limit_key = '{'"),
        ({"max_concurrency": 1, "concurrency_key": 5}, "neither a text nor a function"),
        ({"max_concurrency": -1}, "max_concurrency = -1"),
        ({"max_concurrency": "2"}, "max_concurrency = '2'"),
        ({"circuit_breaker": {"fails": 3}}, "circuit_breaker"),
        ({"circuit_breaker": "often"}, "circuit_breaker"),
    ],
)
def test_a_limit_that_cannot_be_read_is_told_at_start(options: dict[str, Any], told: str) -> None:
    app = Celery("wrong", set_as_current=False)
    app.task(of_user, name="t", shared=False, **options)
    with pytest.raises(ImproperlyConfigured) as caught:
        Ruling.read(app.tasks, {})
    assert told in str(caught.value)


def test_annotations_and_settings_limit_tasks_and_the_switch_turns_rates_off(world: World) -> None:
    world.app.conf.task_annotations = {"a": {"rate_limit": "1/h"}}
    world.app.conf.task_default_rate_limit = "2/h"
    world.task("a")
    world.task("b", max_concurrency=1)
    registry = Policy(Ruling.read(world.app.tasks, {})).registry()
    assert registry["task:a"]["rate"] == pytest.approx(1 / 3600)
    assert registry["task:b"]["rate"] == pytest.approx(2 / 3600)
    assert Policy(Ruling.read(world.app.tasks, {}, no_rates=True)).registry().keys() == {"task:b"}
