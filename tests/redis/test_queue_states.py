"""What is said of a queue is what is in it; looking changes nothing; a purge takes what waits and nothing else."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import redis

from opsq.broker import moving, queues, workers
from opsq.broker.broker import Broker, Outgoing
from opsq.datastore import keys
from opsq.datastore.priorities import PRIORITIES
from opsq.protocol import writing


@pytest.fixture
def broker(redis_url: str) -> Broker:
    """A broker on the clean database."""
    return Broker(redis_url)


def message(task_id: str, **properties: Any) -> bytes:
    raw = writing.build(task="proj.add", id=task_id, args=[1], kwargs={}, queue="mail", origin="t")
    return writing.changed(raw, {}, properties) if properties else raw


def live(client: redis.Redis, consumer: str, left_ms: int = 60_000) -> None:
    client.zadd(keys.consumers("mail"), {consumer: time.time() * 1000 + left_ms})


def state(broker: Broker) -> queues.QueueState:
    return queues.states(broker, ["mail"])[0]


def test_an_empty_queue(broker: Broker) -> None:
    found = state(broker)
    assert found == queues.QueueState("mail", {0: 0, 3: 0, 6: 0, 9: 0}, 0, 0, 0, None, 0, False)
    assert found.depth == 0
    assert queues.states(broker, []) == []


def test_all_parts_are_counted(broker: Broker, redis_client: redis.Redis) -> None:
    for priority, count in ((0, 3), (4, 2), (9, 1)):
        for number in range(count):
            broker.publish(Outgoing("mail", message(f"p{priority}-{number}"), priority=priority))
    redis_client.zadd(keys.delayed("mail"), {"|later": time.time() * 1000 + 1000})
    redis_client.hset(keys.dead("mail"), "d1", "{}")
    redis_client.zadd(keys.dead_index("mail"), {"d1": 1})
    live(redis_client, "a@h:00000000:0")
    live(redis_client, "b@h:00000000:0", left_ms=-1)
    redis_client.hset(keys.inflight("mail", "a@h:00000000:0"), mapping={"1": "x", "2": "y"})
    redis_client.hset(keys.inflight("mail", "b@h:00000000:0"), mapping={"1": "x"})
    redis_client.set(keys.paused("mail"), "1")
    found = state(broker)
    assert found.waiting == {0: 3, 3: 2, 6: 0, 9: 1}
    assert (found.depth, found.delayed, found.in_flight, found.dead) == (6, 1, 3, 1)
    assert (found.consumers, found.paused) == (1, True)
    redis_client.flushdb()


def test_the_age_is_that_of_the_oldest_by_its_tag(broker: Broker, redis_client: redis.Redis) -> None:
    past = int((time.time() - 90) * 1000)
    tag = f"{past:012x}"
    old = message("t1", delivery_tag=f"{tag[:8]}-{tag[8:]}-7000-8000-000000000000")
    redis_client.lpush(PRIORITIES.at_step("mail", 9), old)
    redis_client.lpush("mail", message("t2"))
    found = state(broker).oldest_s
    assert found is not None
    assert 89 < found < 100


def test_what_celery_sent_has_no_age(broker: Broker, redis_client: redis.Redis) -> None:
    redis_client.lpush(
        "mail",
        message("t1", delivery_tag="8d1f1f0e-2b8e-4c7e-9f43-3f3b2a1c0d9e"),
    )
    assert state(broker).oldest_s is None
    redis_client.rpush("mail", b"{broken")
    assert state(broker).oldest_s is None


def test_queues_are_known_once_used(broker: Broker) -> None:
    broker.publish(Outgoing("mail", message("t1")))
    assert queues.known(broker) == ["mail"]
    assert queues.known(broker, ["celery", "mail"]) == ["celery", "mail"]


def test_peeking_shows_the_order_in_which_they_are_taken(broker: Broker, redis_client: redis.Redis) -> None:
    for task_id, priority in (("low", 9), ("first", 0), ("second", 0), ("middle", 3)):
        broker.publish(Outgoing("mail", message(task_id), priority=priority))
    redis_client.lpush("mail", b"{broken")
    before = {key: redis_client.dump(key) for key in redis_client.scan_iter()}
    found = queues.peek(broker, "mail")
    assert [each.id for each in found] == ["first", "second", None, "middle", "low"]
    assert [each.step for each in found] == [0, 0, 0, 3, 9]
    assert found[2].trouble
    assert (found[0].task, found[0].args, found[0].kwargs) == ("proj.add", "(1,)", "{}")
    assert [each.id for each in queues.peek(broker, "mail", 2)] == ["first", "second"]
    assert [each.id for each in queues.peek(broker, "mail", 4)][-1] == "middle"
    assert {key: redis_client.dump(key) for key in redis_client.scan_iter()} == before


def test_a_purge_takes_what_waits_and_nothing_else(broker: Broker, redis_client: redis.Redis) -> None:
    for priority in (0, 3, 6, 9):
        broker.publish(Outgoing("mail", message(f"t{priority}"), priority=priority))
    broker.publish(Outgoing("other", message("t")))
    redis_client.zadd(keys.delayed("mail"), {"|later": 1})
    redis_client.hset(keys.dead("mail"), "d1", "{}")
    live(redis_client, "a@h:00000000:0")
    redis_client.hset(keys.inflight("mail", "a@h:00000000:0"), "1", "x")
    assert moving.purge(broker, "mail") == 5
    found = state(broker)
    assert (found.depth, found.delayed, found.in_flight, found.dead) == (0, 0, 1, 1)
    assert redis_client.llen("other") == 1
    assert moving.purge(broker, "mail") == 0


def test_a_key_prefix_is_kept(redis_url: str, redis_client: redis.Redis) -> None:
    broker = Broker(redis_url, "acme:")
    broker.publish(Outgoing("mail", message("t1")))
    assert queues.known(broker) == ["mail"]
    assert state(broker).depth == 1
    assert len(queues.peek(broker, "mail")) == 1
    assert moving.purge(broker, "mail") == 1
    redis_client.flushdb()


# -- workers -----------------------------------------------------------------------------------------------------------


def announce(client: redis.Redis, worker_id: str, left_ms: int, **more: Any) -> None:
    record = {"id": worker_id, "node": worker_id.rpartition(":")[0], "queues": ["mail"], "children": [], **more}
    client.zadd(keys.WORKERS, {worker_id: time.time() * 1000 + left_ms})
    client.set(keys.worker(worker_id), json.dumps(record), px=60_000)


def test_workers_are_those_whose_lease_runs(broker: Broker, redis_client: redis.Redis) -> None:
    announce(redis_client, "b@h:00000002", 60_000)
    announce(redis_client, "a@h:00000001", 60_000)
    announce(redis_client, "c@h:00000003", -1)
    redis_client.zadd(keys.WORKERS, {"d@h:00000004": time.time() * 1000 + 60_000})
    found = workers.live(broker)
    assert [record["node"] for record in found] == ["a@h", "b@h"]
    assert found[0]["pid"] is None


def test_what_a_child_runs_is_named(broker: Broker, redis_client: redis.Redis) -> None:
    children = [
        {"slot": 0, "pid": 11, "number": 7, "since": 1.0},
        {"slot": 1, "pid": 12, "number": 8, "since": 1.0},
        {"slot": 2, "pid": 13, "number": None, "since": None},
    ]
    announce(redis_client, "a@h:00000001", 60_000, children=children, queues=["other", "mail"])
    redis_client.hset(keys.inflight("mail", "a@h:00000001:0"), "7", message("t1"))
    (record,) = workers.live(broker)
    assert [(child["task"], child["task_id"], child["since"]) for child in record["children"]] == [
        ("proj.add", "t1", 1.0),
        (None, None, None),  # its message has left the store since the record was written
        (None, None, None),
    ]
