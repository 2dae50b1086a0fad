"""The history in Redis: what is kept and found again, its caps, and the collector that writes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from support import event_source
from support.redis_server import RedisServer

from opsq.broker.broker import Broker
from opsq.datastore import keys
from opsq.events.event import Channels
from opsq.exceptions import DecodeError
from opsq.monitor.collector import Collector, Where
from opsq.monitor.record import Record
from opsq.monitor.store import History, Wanted

WaitFor = Callable[..., Any]


@pytest.fixture
def broker(redis_url: str) -> Broker:
    return Broker(redis_url)


@pytest.fixture
def history(broker: Broker) -> History:
    return History(broker)


@pytest.fixture
def collecting() -> Iterator[Callable[..., Collector]]:
    """`collecting(history, ...)` returns a collector that hears; it ends with the test."""
    started: list[Collector] = []

    def start(history: History, *args: Any, **options: Any) -> Collector:
        collector = Collector(history, *args, **options)
        collector.start()
        started.append(collector)
        until = time.monotonic() + 10
        while collector.health.connected_since is None and time.monotonic() < until:
            time.sleep(0.002)
        assert collector.health.connected_since, collector.health.trouble
        return collector

    yield start
    for collector in started:
        collector.stop()


def record(task_id: str, updated: float = 0.0, **values: Any) -> Record:
    return Record(task_id, **{"name": "proj.add", "state": "SUCCESS", "updated": updated or time.time(), **values})


def ids(history: History, **wanted: Any) -> list[str]:
    return [each.id for each in history.find(Wanted(**wanted)).records]


def test_tasks_are_found_by_what_is_known_of_them(history: History) -> None:
    now = time.time()
    history.write(
        [
            record("1", now - 900, name="shop.mail", args="('anna@example.org',)", queue="mail", worker="w1@a"),
            record("2", now - 60, name="shop.charge", state="FAILURE", exception="ValueError('Declined')"),
            record("3", now - 30, name="shop.charge", worker="w2@b", queue="celery"),
        ]
    )
    assert ids(history) == ["3", "2", "1"]
    assert ids(history, name="MAIL") == ids(history, queue="mail") == ids(history, grep="ANNA@") == ["1"]
    assert ids(history, name="shop.*") == ["3", "2", "1"]
    assert ids(history, queue="mai") == []
    assert ids(history, states=frozenset({"FAILURE"})) == ids(history, grep="declined") == ["2"]
    assert ids(history, states=frozenset({"FAILURE", "SUCCESS"}), since=now - 100) == ["3", "2"]
    assert ids(history, worker="w2") == ["3"]


def test_pages_hold_each_task_once_also_where_times_are_equal(history: History) -> None:
    now = time.time()
    states = ("SUCCESS", "FAILURE")
    history.write([record(f"{n:04}", now - n // 10, state=states[n % 2]) for n in range(1200)])
    found: list[str] = []
    before: str | None = ""
    while before is not None:
        page = history.find(Wanted(), 73, before)
        found += [each.id for each in page.records]
        before = page.older
    assert len(found) == len(set(found)) == 1200
    assert found == [each.id for each in history.find(Wanted()).records]


def test_the_oldest_go_first_and_failures_have_a_room_of_their_own(broker: Broker) -> None:
    history = History(broker, cap=50)
    now = time.time()
    history.write([record(f"bad-{n}", now - 5000 - n, state="FAILURE") for n in range(10)])
    history.write([record(f"ok-{n:04}", now - n) for n in range(2500)])
    history.trim()
    assert history.size() == 60
    assert len(ids(history, states=frozenset({"FAILURE"}))) == 10
    assert ids(history, states=frozenset({"SUCCESS"})) == [f"ok-{n:04}" for n in range(50)]


def test_what_is_too_old_goes(broker: Broker) -> None:
    history = History(broker, age_s=100)
    history.write(
        [record("old", time.time() - 101), record("older", time.time() - 999, state="FAILURE"), record("new")]
    )
    history.trim()
    assert ids(history) == ["new"]
    assert history.get(["old", "older", "new"]).keys() == {"new"}


def test_a_task_that_is_well_again_is_in_one_index_only(history: History, redis_client: redis.Redis) -> None:
    history.write([record("1", state="RETRY")])
    history.write([record("1", state="SUCCESS")])
    assert ids(history) == ["1"]
    assert redis_client.zcard(keys.HISTORY_TROUBLE) == 0


def test_a_chain_is_found_from_its_root(history: History) -> None:
    history.write([record("r", root_id="r")])
    history.write([record("a", root_id="r", parent_id="r", received=1.0), record("b", root_id="r", received=2.0)])
    assert [each.id for each in history.chain("r")] == ["r", "a", "b"]


def test_records_of_strangers_are_left_out(history: History, redis_client: redis.Redis) -> None:
    history.write([record("1")])
    redis_client.hset(keys.HISTORY, "2", b"{broken")
    redis_client.zadd(keys.HISTORY_INDEX, {"2": time.time()})
    assert ids(history) == ["1"]


def test_the_collector_writes_what_workers_tell(
    history: History, redis_client: redis.Redis, collecting: Callable[..., Collector], wait_for: WaitFor
) -> None:
    collector = collecting(history)
    event_source.publish(redis_client, event_source.call("<script>", task_id="t1"))
    event_source.publish_one(redis_client, event_source.event("task-sent", uuid="t2", name="proj.later", queue="mail"))
    wait_for(lambda: len(ids(history)) == 2, what="both tasks are kept")
    found = history.get(["t1", "t2"])
    assert (found["t1"].name, found["t1"].state) == ("<script>", "SUCCESS")
    assert (found["t2"].state, found["t2"].queue) == ("PENDING", "mail")
    assert collector.health.events == 4


@pytest.mark.usefixtures("redis_url")
def test_events_come_under_the_prefix_and_database_of_the_broker(
    redis_server: RedisServer, collecting: Callable[..., Collector], wait_for: WaitFor
) -> None:
    broker = Broker(redis_server.url(3), "shop[1]:")
    where = Where(Channels(3, "shop[1]:"))
    history = History(broker)
    collector = collecting(history, where=where)
    with redis_server.client(3) as client:
        event_source.publish(client, event_source.call(task_id="t1"), db=3, prefix="shop[1]:")
        event_source.publish(client, event_source.call(task_id="t2"), db=3, prefix="shop1:")
        wait_for(lambda: ids(history), what="the task is kept")
        assert ids(history) == ["t1"]
        collector.stop()
        client.flushdb()  # the audit of keys knows those without prefix


def test_bad_messages_do_not_stop_it(
    history: History, redis_client: redis.Redis, collecting: Callable[..., Collector], wait_for: WaitFor
) -> None:
    collector = collecting(history)
    for junk in (b"", b"\xff", b"{}", b'{"body": "x", "properties": {"body_encoding": "base64"}}'):
        redis_client.publish("/0.celeryev/task.multi", junk)
    event_source.publish(redis_client, event_source.call(task_id="t1"))
    wait_for(lambda: ids(history) == ["t1"], what="the task is kept")
    assert collector.health.unreadable == 4


def test_it_hears_again_after_its_connection_was_cut(
    history: History, redis_client: redis.Redis, collecting: Callable[..., Collector], wait_for: WaitFor
) -> None:
    collector = collecting(history)
    first = collector.health.connected_since
    redis_client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    wait_for(lambda: collector.health.connected_since not in (None, first), what="it listens again")
    event_source.publish(redis_client, event_source.call(task_id="t1"))
    wait_for(lambda: ids(history) == ["t1"], what="the task is kept")


def test_what_ended_while_nobody_listened_is_learned_from_its_result(
    history: History, collecting: Callable[..., Collector], wait_for: WaitFor
) -> None:
    history.write([record(each, state="STARTED", updated=time.time() - 5) for each in ("well", "bad", "odd", "runs")])

    def meta_of(task_id: str) -> dict[str, Any]:
        if task_id == "odd":
            raise DecodeError("cannot read it")
        done = {"date_done": "2026-11-21T10:00:00+00:00", "traceback": None}
        return {
            "well": {"status": "SUCCESS", "result": [1, 2], **done},
            "bad": {"status": "FAILURE", "result": ValueError("no"), **done, "traceback": "Traceback"},
        }.get(task_id, {"status": "PENDING", "result": None})

    collecting(history, meta_of)
    wait_for(lambda: history.get(["bad"])["bad"].state == "FAILURE", what="the ends are learned")
    found = history.get(["well", "bad", "odd", "runs"])
    assert (found["well"].state, found["well"].result) == ("SUCCESS", "[1, 2]")
    assert (found["bad"].exception, found["bad"].traceback) == ("ValueError('no')", "Traceback")
    assert found["odd"].state == found["runs"].state == "STARTED"


def test_a_stop_writes_what_was_heard(
    history: History, redis_client: redis.Redis, collecting: Callable[..., Collector], wait_for: WaitFor
) -> None:
    collector = collecting(history)
    event_source.publish(redis_client, event_source.call(task_id="first"))
    wait_for(lambda: ids(history), what="a batch has just been written")
    pipe = redis_client.pipeline(transaction=False)
    for number in range(2000):
        pipe.publish("/0.celeryev/task.multi", event_source.envelope(event_source.call(task_id=str(number))))
    pipe.execute()
    collector.stop()
    assert history.size() + history.skipped() == 2001


def test_what_redis_refuses_is_written_when_it_takes_it_again(
    history: History, redis_client: redis.Redis, collecting: Callable[..., Collector], wait_for: WaitFor
) -> None:
    collector = collecting(history)
    wait_for(lambda: redis_client.exists(keys.MONITOR_SAMPLES), what="nothing but the task is to be written")
    redis_client.config_set("maxmemory", "1")
    try:
        event_source.publish(redis_client, event_source.call(task_id="t1"))
        wait_for(lambda: collector.health.trouble, what="the refusal is noticed")
    finally:
        redis_client.config_set("maxmemory", "0")
    wait_for(lambda: collector.health.connected_since, what="it listens again")
    event_source.publish(redis_client, event_source.call(task_id="t2"))
    wait_for(lambda: set(ids(history)) == {"t1", "t2"}, what="both are kept")


def test_workers_that_are_heard_of_are_alive_until_they_fall_silent(
    history: History, redis_client: redis.Redis, collecting: Callable[..., Collector], wait_for: WaitFor
) -> None:
    collector = collecting(history)
    beat = {"freq": 2.0, "active": 1, "processed": 7, "loadavg": [0.1, 0.2, 0.3], "sw_ident": "py-celery"}
    event_source.publish_one(redis_client, event_source.event("worker-online", **beat))
    [node] = wait_for(lambda: collector.nodes.all(time.time()), what="the worker is heard of")
    assert node.alive(time.time())
    assert not node.alive(time.time() + 10)
    event_source.publish_one(redis_client, event_source.event("worker-offline", **beat))
    wait_for(lambda: not node.alive(time.time()), what="its good-bye is heard")


def test_under_load_counts_of_what_is_left_out_are_kept(
    history: History, redis_client: redis.Redis, collecting: Callable[..., Collector], wait_for: WaitFor
) -> None:
    collector = collecting(history)
    calls = [event_source.call(task_id=str(number)) for number in range(3000)]
    for at in range(0, 3000, 500):
        event_source.publish(redis_client, [each for call in calls[at : at + 500] for each in call])
    wait_for(lambda: collector.health.events == 9000, what="all is heard")
    wait_for(lambda: history.size() + history.skipped() == 3000, what="each is kept or counted")
    assert collector.health.skipped == history.skipped() > 1000
