"""What Celery's workers left in `unacked` goes back to its list: after the timeout, once, and nothing is dropped."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from support.broken_messages import whole

from opsq.broker.leftovers import AT_ONCE, Leftovers
from opsq.datastore import keys
from opsq.datastore.line import Line
from opsq.datastore.priorities import PRIORITIES

FOR_TWO_HOURS = 7200


@pytest.fixture
def leftovers() -> Leftovers:
    return Leftovers(["mail", "celery"], "", {})


@pytest.fixture
def line(redis_url: str) -> Iterator[Line]:
    line = Line(redis_url)
    yield line
    line.close()


def deliver(
    client: redis.Redis, tag: str, age_s: float, exchange: str = "", routing_key: str = "mail", priority: int = 0
) -> dict[str, Any]:
    """As kombu writes down that a worker took a message."""
    message = whole(tag)
    message["properties"] |= {"delivery_tag": tag, "priority": priority}
    client.hset("unacked", tag, json.dumps([message, exchange, routing_key]))
    client.zadd("unacked_index", {tag: time.time() - age_s})
    return message


def ids(client: redis.Redis, name: str) -> list[str]:
    """Those that wait, the next one first."""
    return [json.loads(raw)["headers"]["id"] for raw in reversed(client.lrange(name, 0, -1))]


def test_they_go_back_to_the_head_of_their_list_marked_as_kombu_does(leftovers, line, redis_client) -> None:
    waiting = json.dumps(whole("waiting")).encode()
    redis_client.lpush("mail", waiting)
    sent = deliver(redis_client, "left", FOR_TWO_HOURS)
    assert leftovers.restore(line) == 1
    assert ids(redis_client, "mail") == ["left", "waiting"]
    message = json.loads(redis_client.lindex("mail", -1))
    assert message["headers"] == {**sent["headers"], "redelivered": True}
    assert message["properties"]["delivery_info"]["redelivered"] is True
    assert (message["body"], message["properties"]["delivery_tag"]) == (sent["body"], "left")
    assert not redis_client.exists("unacked", "unacked_index")


def test_the_oldest_is_next(leftovers, line, redis_client) -> None:
    for number in range(AT_ONCE + 20):
        deliver(redis_client, f"{number}", FOR_TWO_HOURS - number)
    assert leftovers.restore(line) == AT_ONCE + 20
    assert ids(redis_client, "mail") == [f"{number}" for number in range(AT_ONCE + 20)]


def test_never_before_their_timeout(line, redis_client) -> None:
    deliver(redis_client, "young", 3000)
    deliver(redis_client, "old", 4000)
    assert Leftovers(["mail"], "", {"visibility_timeout": 5000}).restore(line) == 0
    assert Leftovers(["mail"], "", {}).restore(line) == 1
    assert ids(redis_client, "mail") == ["old"]
    assert redis_client.hkeys("unacked") == [b"young"]
    redis_client.delete("unacked", "unacked_index")


def test_the_timeout_holds_in_the_script_too(leftovers, line, redis_client, monkeypatch) -> None:
    """It was delivered anew after it was looked at."""
    deliver(redis_client, "again", FOR_TWO_HOURS)
    found = leftovers._due

    def late(line: Line, tags: Any) -> list[Any]:
        due = list(found(line, tags))
        redis_client.zadd("unacked_index", {"again": time.time()})
        return due

    monkeypatch.setattr(leftovers, "_due", late)
    assert leftovers.restore(line) == 0
    assert redis_client.hlen("unacked") == 1
    redis_client.delete("unacked", "unacked_index")


def test_not_while_a_celery_process_does_it(leftovers, line, redis_client) -> None:
    deliver(redis_client, "left", FOR_TWO_HOURS)
    redis_client.set("unacked_mutex", "somebody", px=60_000)
    assert leftovers.restore(line) == 0
    assert redis_client.hlen("unacked") == 1
    redis_client.delete("unacked_mutex")
    assert leftovers.restore(line) == 1


def test_each_by_its_priority_and_binding(leftovers, line, redis_client) -> None:
    deliver(redis_client, "low", FOR_TWO_HOURS, priority=7)
    redis_client.sadd(keys.binding("shop"), "order.#\x06\x16^order\\..*?$\x06\x16mail", "x\x06\x16\x06\x16other")
    deliver(redis_client, "bound", FOR_TWO_HOURS, exchange="shop", routing_key="order.new")
    deliver(redis_client, "unbound", FOR_TWO_HOURS, exchange="celery", routing_key="celery")
    assert leftovers.restore(line) == 3
    assert ids(redis_client, PRIORITIES.at_step("mail", 6)) == ["low"]
    assert ids(redis_client, "mail") == ["bound"]
    assert ids(redis_client, "celery") == ["unbound"]
    redis_client.delete(keys.binding("shop"))


def test_what_is_of_other_queues_or_cannot_be_read_or_pushed_stays(leftovers, line, redis_client) -> None:
    for number in range(AT_ONCE + 5):
        deliver(redis_client, f"foreign-{number}", 3 * FOR_TWO_HOURS, routing_key="theirs")
    redis_client.hset("unacked", "odd", b"\xff no entry")
    redis_client.zadd("unacked_index", {"odd": 1, "without entry": 1})
    deliver(redis_client, "blocked", FOR_TWO_HOURS, routing_key="celery")
    redis_client.hset("celery", "it is", "no list")
    deliver(redis_client, "ours", FOR_TWO_HOURS)
    assert leftovers.restore(line) == 1
    assert ids(redis_client, "mail") == ["ours"]
    assert redis_client.hlen("unacked") == AT_ONCE + 5 + 2
    redis_client.delete("unacked", "unacked_index", "celery")


def test_a_full_server_lets_them_go_back(leftovers, line, redis_client) -> None:
    deliver(redis_client, "left", FOR_TWO_HOURS)
    redis_client.config_set("maxmemory", 1)
    try:
        assert leftovers.restore(line) == 1
    finally:
        redis_client.config_set("maxmemory", 0)
    assert ids(redis_client, "mail") == ["left"]


def test_the_lists_of_priorities_are_those_of_the_transport_options(line, redis_client) -> None:
    deliver(redis_client, "low", FOR_TWO_HOURS, priority=7)
    assert Leftovers(["mail"], "", {"priority_steps": list(range(10)), "sep": ":"}).restore(line) == 1
    assert ids(redis_client, "mail:7") == ["low"]
