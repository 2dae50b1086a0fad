"""Messages moved from queue to queue, and thrown away: none is lost, none is there twice."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
import redis

from opsq import App
from opsq.broker.moving import Move, purge
from opsq.datastore import keys
from opsq.protocol import envelope


@pytest.fixture
def app(redis_url: str) -> App:
    return App("t", broker=redis_url, set_as_current=False)


def numbers(client: redis.Redis, name: str) -> list[int]:
    """The argument of what waits in a list, the next one first."""
    raws: Any = client.lrange(name, 0, -1)
    return [envelope.parse(raw).arguments(frozenset(["application/json"]))[0][0] for raw in reversed(raws)]


def fill(app: App, count: int, **options: Any) -> None:
    """Every third is of another task."""
    app.send_many((f"t.{'b' if n % 3 == 0 else 'a'}", (n,), None, {"queue": "mail", **options}) for n in range(count))


def test_all_is_moved_in_order_with_priorities_and_for_later(app: App, redis_client: redis.Redis) -> None:
    redis_client.zadd("opsq:consumers:{mail}", {"somebody": 2**53})
    fill(app, 1200)
    fill(app, 10, priority=6)
    fill(app, 5, countdown=600, priority=9)
    before: Any = redis_client.zrange("opsq:delayed:{mail}", 0, -1, withscores=True)
    move = Move(app.broker, "mail", "slow")
    assert move.count() == 1215
    assert move.run() == 1215
    assert numbers(redis_client, "slow") == list(range(1200))
    assert numbers(redis_client, "slow\x06\x166") == list(range(10))
    after: Any = redis_client.zrange("opsq:delayed:{slow}", 0, -1, withscores=True)
    assert [score for _, score in after] == [score for _, score in before]
    assert all(member.startswith(b"9|{") for member, _ in after)
    assert not redis_client.exists("mail", "mail\x06\x166", "opsq:delayed:{mail}")
    message = json.loads(redis_client.lindex("slow", 0))  # type: ignore[arg-type]
    assert message["properties"]["delivery_info"] == {"exchange": "", "routing_key": "slow"}
    assert b"slow" in redis_client.smembers("opsq:queues")  # type: ignore[operator]


def test_a_part_is_the_next_ones_and_goes_behind_what_waits_there(app: App, redis_client: redis.Redis) -> None:
    fill(app, 1200)
    app.send_task("t.a", (-1,), queue="slow")
    assert Move(app.broker, "mail", "slow").run(700) == 700
    assert numbers(redis_client, "slow") == [-1, *range(700)]
    assert numbers(redis_client, "mail") == list(range(700, 1200))


@pytest.mark.parametrize("limit", [0, 100])
def test_only_one_tasks_messages(app: App, redis_client: redis.Redis, limit: int) -> None:
    fill(app, 3000)
    wanted = [number for number in range(3000) if number % 3 == 0][: limit or None]
    move = Move(app.broker, "mail", "slow", "t.b")
    assert move.count() == 1000
    assert move.run(limit) == len(wanted)
    assert numbers(redis_client, "slow") == wanted
    assert numbers(redis_client, "mail") == [number for number in range(3000) if number not in set(wanted)]


@pytest.mark.parametrize("task", [None, "t.b"])
def test_others_may_take_and_send_meanwhile(app: App, redis_client: redis.Redis, task: str | None) -> None:
    fill(app, 4000)
    done, taken = threading.Event(), []

    def take() -> None:
        with redis.Redis.from_url(app.broker.url) as other:
            while not done.is_set():
                taken.extend(json.loads(raw)["headers"]["argsrepr"] for raw in other.rpop("mail", 7) or ())  # type: ignore[union-attr]
                if len(taken) % 5 == 0 and (raw := other.rpop("mail")) is not None:
                    other.rpush("mail", raw)  # given back

    taker = threading.Thread(target=take)
    taker.start()
    moved = Move(app.broker, "mail", "slow", task).run()
    done.set()
    taker.join()
    there = [f"({number},)" for name in ("mail", "slow") for number in numbers(redis_client, name)]
    assert sorted(there + taken) == sorted(f"({number},)" for number in range(4000))
    assert len(numbers(redis_client, "slow")) == moved
    assert numbers(redis_client, "slow") == sorted(numbers(redis_client, "slow"))
    if task is not None:
        assert not [number for number in numbers(redis_client, "mail") if number % 3 == 0]


def test_equal_and_unreadable_messages_are_moved_as_they_are(app: App, redis_client: redis.Redis) -> None:
    redis_client.lpush("mail", b"junk", b"{junk", b"junk", b"")
    assert Move(app.broker, "mail", "slow", "t.a").run() == 0
    assert Move(app.broker, "mail", "slow").run(3) == 3
    assert redis_client.lrange("slow", 0, -1) == [b"junk", b"{junk", b"junk"]
    assert redis_client.lrange("mail", 0, -1) == [b""]


def test_what_cannot_be_written_stays(app: App, redis_client: redis.Redis) -> None:
    fill(app, 10)
    redis_client.set("celery-task-meta-x", "no list", ex=60)
    with pytest.raises(Exception, match="WRONGTYPE"):
        Move(app.broker, "mail", "celery-task-meta-x").run()
    assert numbers(redis_client, "mail") == list(range(10))


def test_purging_frees_what_unique_messages_had_claimed(app: App, redis_client: redis.Redis) -> None:
    redis_client.zadd("opsq:consumers:{mail}", {"somebody": 2**53})
    for number in range(700):
        app.send_task("t.a", queue="mail", unique_key=f"{number}", **({"countdown": 60} if number > 650 else {}))
    redis_client.set(keys.unique("t.a:3"), "another", ex=60)
    assert purge(app.broker, "mail") == 700
    assert list(redis_client.scan_iter("opsq:unique:*")) == [b"opsq:unique:t.a:3"]
    assert not list(redis_client.scan_iter("opsq:purged:*"))
    assert not redis_client.exists("mail", "opsq:delayed:{mail}")
