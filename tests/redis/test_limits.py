"""Limits as the scripts keep them: rates against a model, places, circuits, and the lanes in which messages wait."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from support.redis_server import RedisServer

from opsq import Celery
from opsq.broker import audit, moving, queues
from opsq.broker import limited as looking
from opsq.broker.broker import Broker
from opsq.broker.consumer import Consumer
from opsq.broker.limits import EARLY_US, RELEASE, rate_per_second
from opsq.broker.settlement import Settlement
from opsq.datastore import keys
from opsq.exceptions import ImproperlyConfigured
from opsq.protocol import envelope
from opsq.protocol.envelope import Envelope, parse
from opsq.worker.admission import Admission
from opsq.worker.batch import Held
from opsq.worker.gate import Elsewhere, Later
from opsq.worker.limit_options import Ruling
from opsq.worker.limits import Policy
from opsq.worker.settle import Results, Settler

QUEUE = "celery"
ACCEPT = frozenset({"application/json"})


@dataclass
class Desk:
    """One child as far as limits are concerned: what it leases, asks for, holds and settles."""

    url: str
    client: redis.Redis
    policy: Policy
    worker: str = "w@h:11112222"
    slot: int = 0
    queues: tuple[str, ...] = (QUEUE,)
    taken: list[tuple[Held, Envelope]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.consumer = Consumer(self.url, self.queues, f"{self.worker}:{self.slot}")
        for queue in self.queues:
            self.client.zadd(keys.consumers(queue), {self.consumer.name: 9e15})
        self.consumer.connect()
        self.settler = Settler(list(self.queues), Results())
        self.admission = Admission(self.consumer, self.worker, self.policy, ACCEPT, lambda: 0)

    def lease(self, want: int = 500) -> list[str]:
        """Lease and ask; the ids of those that may run."""
        turn = self.consumer.turn((), want)
        fresh = []
        for leased in turn.leased:
            for place, raw in enumerate(leased.messages):
                fresh.append((Held(leased.number + place, leased.queue, leased.source, raw), parse(raw)))
        verdicts = self.admission.look(fresh)
        assert all(isinstance(verdict, Elsewhere) for verdict in verdicts.values())
        may = [each for each in fresh if each[0].number not in verdicts]
        self.taken += may
        return [message.headers.id for _held, message in may]

    def end(self, task_id: str, word: Any = "succeeded") -> Any:
        """Settle one that ran; returns the turn."""
        held = self._give(task_id)
        settlement = Settlement(held.queue, held.number, word=word, task="t")
        self.settler.hand_in(settlement, self.consumer.passes[held.queue])
        return self.consumer.turn([settlement], 0)

    def back(self, task_id: str) -> None:
        """Give one back that was not started."""
        held = self._give(task_id)
        settlement = self.settler.back(held.queue, held.number, held.source, held.raw)
        self.settler.hand_in(settlement, self.consumer.passes[held.queue])
        self.consumer.turn([settlement], 0)

    def _give(self, task_id: str) -> Held:
        found = next(each for each in self.taken if each[1].headers.id == task_id)
        self.taken.remove(found)
        return found[0]

    def release(self, queue: str = QUEUE, *changed: str) -> tuple[int, float | None]:
        """What the mover does: how many were put back, and in how many seconds it looks again."""
        arguments = [keys.lane_facts(queue), self.worker, 500, *changed]
        moved, again = RELEASE.run(self.client, [keys.lanes(queue)], arguments)
        return moved, float(again) / 1000 - time.time() if again else None

    def close(self) -> None:
        self.consumer.close()


def nothing(*_args: Any, **_kwargs: Any) -> None:
    """What most tasks do."""


def of_user(user: str, text: str = "") -> None:
    """A task with arguments."""


class World:
    """An app's limits, and desks that work under them."""

    def __init__(self, url: str, client: redis.Redis) -> None:
        self.url, self.client = url, client
        self.app = Celery("limits", set_as_current=False)
        self.desks: list[Desk] = []
        self.queue_limits: dict[str, Any] = {}

    def task(self, name: str, function: Any = nothing, **options: Any) -> None:
        self.app.task(function, name=name, shared=False, **options)

    def desk(self, **options: Any) -> Desk:
        policy = Policy(Ruling.read(self.app.tasks, self.queue_limits), tasks=self.app.tasks)
        desk = Desk(self.url, self.client, policy, slot=len(self.desks), **options)
        self.desks.append(desk)
        return desk

    def send(self, task: str, *ids: str, queue: str = QUEUE, priority: int = 0, **kwargs: Any) -> None:
        for task_id in ids:
            raw = envelope.build(task=task, id=task_id, args=[], kwargs=kwargs, queue=queue, priority=priority)
            self.client.lpush(keys.PRIORITIES.list_of(queue, priority), raw)

    def parked(self, queue: str = QUEUE) -> int:
        """What waits in lanes, counted message by message."""
        return sum(int(self.client.llen(key)) for key in self.client.scan_iter(f"opsq:limited:{{{queue}}}:*"))

    def is_empty(self, queue: str = QUEUE) -> bool:
        """Nothing is left of lanes and passes."""
        left = [*self.client.scan_iter("opsq:lane*"), *self.client.scan_iter("opsq:passes:*")]
        return not left and not self.parked(queue)


@pytest.fixture
def world(redis_url: str, redis_client: redis.Redis) -> Iterator[World]:
    made = World(redis_url, redis_client)
    yield made
    for desk in made.desks:
        desk.close()


def numbered(count: int, start: int = 0) -> list[str]:
    return [f"m{n}" for n in range(start, start + count)]


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


def test_messages_of_other_tasks_pass_by(world: World) -> None:
    world.task("t", rate_limit="1/h")
    world.task("free")
    desk = world.desk()
    world.send("t", "t1", "t2", "t3")
    world.send("free", "f1", "f2")
    assert desk.lease() == ["t1", "f1", "f2"]


def test_new_ones_never_pass_those_that_wait(world: World) -> None:
    world.task("t", rate_limit="50/s", rate_limit_scope="cluster")
    desk = world.desk()
    world.send("t", *numbered(4))
    started = desk.lease()
    time.sleep(0.05)
    world.send("t", "late")
    started += desk.lease()
    assert "late" not in started
    while len(started) < 5:
        desk.release()
        started += desk.lease()
    assert started == [*numbered(4), "late"]


def test_priorities_are_kept(world: World) -> None:
    world.task("t", rate_limit="100/s", rate_limit_scope="cluster")
    desk = world.desk()
    world.send("t", "p0", "p1", "p2", "p3", "p4", "p5")
    assert desk.lease()[0] == "p0"
    world.send("t", "nine", priority=9)
    desk.lease()
    assert world.client.llen(f"opsq:limited:{{celery}}:t{keys.PRIORITY_SEPARATOR}9") == 1
    started: list[str] = []
    while "nine" not in started:
        desk.release()
        started += desk.lease(1)
    assert started[-1] == "nine"
    assert desk.taken[-1][0].source == keys.PRIORITIES.list_of(QUEUE, 9)


def test_what_goes_back_unstarted_gets_its_rate_back_and_comes_first(world: World) -> None:
    world.task("t", rate_limit="1/h", rate_limit_scope="cluster")
    desk = world.desk()
    world.send("t", *numbered(3))
    assert desk.lease() == ["m0"]
    desk.back("m0")
    assert desk.lease() == ["m0"]
    assert desk.lease() == []


def test_two_movers_put_back_no_more_than_one(world: World) -> None:
    world.task("t", rate_limit="20/s", rate_limit_scope="cluster")
    desk, other = world.desk(), world.desk(worker="w@other:33334444")
    world.send("t", *numbered(6))
    assert desk.lease() == ["m0"]
    time.sleep(0.2)  # four are due by the clock; none has asked
    assert desk.release()[0] + other.release()[0] + desk.release()[0] == 1


def test_what_nobody_takes_is_not_followed_by_more(world: World) -> None:
    """All workers are busy: one message waits at the head of the queue, however long."""
    world.task("t", rate_limit="100/s", rate_limit_scope="cluster")
    desk = world.desk()
    world.send("t", *numbered(9))
    started = desk.lease()
    until = time.monotonic() + 1.4
    while time.monotonic() < until:
        desk.release()
        time.sleep(0.05)
    back = world.client.llen(QUEUE)
    assert back <= 3
    assert world.parked() == 9 - len(started) - back


def test_a_limit_that_is_lifted_lets_go_all_that_waits(world: World) -> None:
    world.task("t", rate_limit="1/h", rate_limit_scope="cluster")
    desk = world.desk()
    world.send("t", *numbered(20))
    desk.lease()
    desk.policy.set_rates({"t": "0"}, {})
    facts = desk.policy.facts(QUEUE, "t")
    assert facts is not None
    assert desk.release(QUEUE, "t", facts)[0] == 19
    assert desk.lease() == numbered(19, 1)


def test_a_purge_throws_away_what_waits_and_counts_it(world: World) -> None:
    world.task("t", rate_limit="1/h", rate_limit_scope="cluster")
    desk = world.desk()
    world.send("t", *numbered(4))
    desk.lease()
    world.send("t", "more")
    broker = Broker(world.url)
    assert queues.states(broker, [QUEUE])[0].limited == 3
    assert moving.purge(broker, QUEUE) == 4
    assert not world.parked()
    assert queues.states(broker, [QUEUE])[0].limited == 0


def test_the_books_balance_while_messages_wait(world: World) -> None:
    world.task("t", rate_limit="1/h", rate_limit_scope="cluster")
    desk = world.desk()
    world.send("t", *numbered(4))
    desk.lease()
    desk.end("m0")
    [balance] = audit.balances(Broker(world.url), [QUEUE])
    assert (balance.missing, balance.limited, balance.sent) == (0, 3, 4)


def test_a_lane_that_holds_something_else_costs_no_message(world: World) -> None:
    world.task("t", rate_limit="1/h", rate_limit_scope="cluster")
    desk = world.desk()
    world.client.set("opsq:limited:{celery}:t", "no list")
    world.send("t", "m0", "m1")
    turn = desk.consumer.turn((), 2)
    fresh = [
        (Held(turn.leased[0].number + n, 0, QUEUE, raw), parse(raw)) for n, raw in enumerate(turn.leased[0].messages)
    ]
    [(number, verdict)] = desk.admission.look(fresh).items()
    assert number == fresh[1][0].number
    assert isinstance(verdict, Later)
    assert world.client.hlen(desk.consumer.stores[0]) == 2
    world.client.delete("opsq:limited:{celery}:t")
    assert isinstance(desk.admission.look(fresh)[number], Elsewhere)


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
