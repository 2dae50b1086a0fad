"""Messages that wait for their limits: in what order, until when, and what becomes of them besides."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from support.limits_world import QUEUE, Desk, World, numbered, opened

from opsq.broker import audit, moving, queues, revoked
from opsq.broker.broker import Broker
from opsq.datastore import keys
from opsq.datastore.priorities import PRIORITIES
from opsq.protocol import writing
from opsq.protocol.envelope import parse
from opsq.worker.batch import Held
from opsq.worker.gate import Elsewhere, Later


@pytest.fixture
def world(redis_url: str, redis_client: redis.Redis) -> Iterator[World]:
    with opened(redis_url, redis_client) as made:
        yield made


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
    assert desk.taken[-1][0].source == PRIORITIES.list_of(QUEUE, 9)


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


# -- what is revoked, looked at or moved while it waits ----------------------------------------------------------------


def ids_in(world: World, name: str) -> list[str]:
    """The ids of what waits in a list, the next one first."""
    raws: Any = world.client.lrange(name, 0, -1)
    return [parse(raw).headers.id for raw in reversed(raws)]


def parking(world: World, count: int, **more: Any) -> Desk:
    """A desk that has started one of so many, the others wait."""
    world.task("t", rate_limit="1/h", rate_limit_scope="cluster")
    desk = world.desk()
    world.client.sadd(keys.QUEUES, QUEUE)
    world.send("t", *numbered(count), **more)
    desk.lease(count)
    assert world.parked() == count - 1
    return desk


def test_what_is_revoked_comes_to_the_head_of_its_queue_and_the_others_keep_their_order(world: World) -> None:
    desk = parking(world, 1500)
    world.send("t", "later")
    revoked.revoke(world.client, "", ["m7", "m700", "m1400", "later"])
    assert sorted(ids_in(world, QUEUE)[:3]) == ["m1400", "m7", "m700"]
    assert ids_in(world, QUEUE)[3:] == ["later"]
    lane = ids_in(world, keys.limited(QUEUE, "t"))
    assert lane == [each for each in numbered(1499, 1) if each not in ("m7", "m700", "m1400")]
    assert queues.states(Broker(world.url), [QUEUE])[0].limited == 1496
    [balance] = audit.balances(Broker(world.url), [QUEUE])
    assert not balance.missing
    assert desk.lease() == [], "who takes them by mistake puts them back"


def test_what_is_revoked_by_a_stamp_comes_out_too_and_one_taken_by_mistake_goes_back_to_its_place(world: World) -> None:
    desk = parking(world, 3)
    stamped = writing.build(
        task="t", id="s1", args=[], kwargs={}, queue=QUEUE, headers={"stamped_headers": ["shop"], "stamps": {"shop": 5}}
    )
    world.client.lpush(QUEUE, stamped)
    desk.lease()
    assert ids_in(world, keys.limited(QUEUE, "t")) == ["m1", "m2", "s1"]
    revoked.revoke_stamps(world.client, "", {"shop": 5})
    assert ids_in(world, QUEUE) == ["s1"]
    assert ids_in(world, keys.limited(QUEUE, "t")) == ["m1", "m2"]
    desk.lease()  # a desk asks for no revocations
    assert ids_in(world, keys.limited(QUEUE, "t")) == ["s1", "m1", "m2"]
    assert queues.states(Broker(world.url), [QUEUE])[0].limited == 3


def test_a_lane_from_which_all_was_taken_goes(world: World) -> None:
    desk = parking(world, 3)
    revoked.revoke(world.client, "", ["m1", "m2"])
    world.client.delete(QUEUE)
    world.client.zadd(keys.lanes(QUEUE), {"t": 0})
    desk.release()
    desk.end("m0")
    assert world.is_empty()


def test_a_look_into_a_queue_shows_what_waits_for_limits_after_the_others(world: World) -> None:
    parking(world, 3)
    world.send("t", "next")
    found = queues.peek(Broker(world.url), QUEUE)
    assert [(each.id, each.limits) for each in found] == [("next", None), ("m1", "task t"), ("m2", "task t")]
    assert [each.id for each in queues.peek(Broker(world.url), QUEUE, 2)] == ["next", "m1"]


@pytest.mark.parametrize("task", [None, "t"])
def test_what_waits_for_limits_is_moved_too_in_its_order(world: World, task: str | None) -> None:
    desk = parking(world, 2500)
    desk.back(
        "m0"
    )  # it goes to its queue, and m1 too since it is paid back, with the mark of those that were there before
    world.send("t", "last")
    move = moving.Move(Broker(world.url), QUEUE, "slow", task)
    assert move.count() == 2501
    assert move.run() == 2501
    moved = ids_in(world, "slow")
    assert moved[:2498] == numbered(2498, 2)
    assert sorted(moved[2498:]) == ["last", "m0", "m1"]
    assert not any(raw.startswith(writing.PARKED) for raw in world.client.lrange("slow", 0, -1))  # type: ignore[union-attr]
    assert not world.parked()
    assert queues.states(Broker(world.url), [QUEUE])[0].limited == 0


def test_only_as_many_are_moved_as_are_wanted(world: World) -> None:
    parking(world, 10)
    assert moving.Move(Broker(world.url), QUEUE, "slow").run(4) == 4
    assert ids_in(world, "slow") == numbered(4, 1)
    assert ids_in(world, keys.limited(QUEUE, "t")) == numbered(5, 5)
    assert queues.states(Broker(world.url), [QUEUE])[0].limited == 5
