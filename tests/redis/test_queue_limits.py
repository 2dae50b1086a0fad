"""Queues that are limited in length: who sends is refused, or waits for room; what is given back never is."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from support.proxy import CutAfterForward
from support.redis_server import RedisServer

from opsq import App
from opsq.broker.consumer import Consumer
from opsq.broker.outgoing import PUBLISH
from opsq.broker.settlement import Settlement
from opsq.datastore import keys
from opsq.datastore.priorities import PRIORITIES
from opsq.exceptions import ImproperlyConfigured, OperationalError, QueueFull


def limited(url: str, length: int = 3, **more: Any) -> App:
    queues = {"mail": {"max_length": length, **more}, "free": None}
    return App("t", broker=url, task_queues=queues, set_as_current=False)


def arguments(client: redis.Redis, queue: str = "mail") -> list[Any]:
    """The `argsrepr` of what waits, the oldest first."""
    import json

    raws: Any = client.lrange(queue, 0, -1)
    return [json.loads(raw)["headers"]["argsrepr"] for raw in reversed(raws)]


def test_a_full_queue_refuses_and_says_what_to_do(redis_url: str, redis_client: redis.Redis) -> None:
    app = limited(redis_url)
    for number in range(3):
        app.send_task("t.a", (number,), queue="mail", priority=number * 3)
    for options in ({}, {"priority": 9}, {"countdown": 60}, {"unique_key": "k"}, {"unique_key": "k", "debounce": 9}):
        with pytest.raises(
            QueueFull, match="the queue 'mail' is full: it holds its max_length of 3 messages"
        ) as caught:
            app.send_task("t.a", queue="mail", **options)
        assert "max_length in task_queues" in caught.value.hint
    assert isinstance(caught.value, OperationalError)
    assert not redis_client.exists("opsq:unique:t.a:k", "opsq:debounced:{mail}:t.a:k")
    app.send_task("t.a", queue="free")
    redis_client.rpop("mail")
    app.send_task("t.a", (3,), queue="mail")
    assert sum(int(redis_client.llen(each)) for each in PRIORITIES.lists("mail")) == 3  # type: ignore[arg-type]


def test_what_is_for_later_counts_too(redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.zadd("opsq:consumers:{mail}", {"somebody": 2**53})
    app = limited(redis_url)
    app.send_many([("t.a", (n,), None, {"queue": "mail", "countdown": 60}) for n in range(2)])
    app.send_task("t.a", queue="mail")
    with pytest.raises(QueueFull):
        app.send_task("t.a", queue="mail")
    assert (redis_client.zcard("opsq:delayed:{mail}"), redis_client.llen("mail")) == (2, 1)


def test_a_unique_call_that_is_there_already_needs_no_room(redis_url: str) -> None:
    app = limited(redis_url, 1)
    first = app.send_task("t.a", queue="mail", unique_key="k")
    assert app.send_task("t.a", queue="mail", unique_key="k").id == first.id


def test_of_many_as_many_go_as_there_is_room_for(redis_url: str, redis_client: redis.Redis) -> None:
    app = limited(redis_url, 700)
    calls: list[Any] = [("t.a", (n,), None, {"queue": "mail" if n % 2 else "free"}) for n in range(2000)]
    with pytest.raises(QueueFull) as caught:
        app.send_many(calls)
    assert caught.value.sent == 1401
    assert redis_client.llen("mail") == 700
    assert arguments(redis_client)[-1] == "(1399,)"


def test_of_many_senders_none_exceeds_the_limit(redis_url: str, redis_client: redis.Redis) -> None:
    app, refused = limited(redis_url, 100), []

    def send() -> None:
        for _ in range(50):
            try:
                app.send_task("t.a", queue="mail")
            except QueueFull:
                refused.append(1)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redis_client.llen("mail") == len(refused) == 100


def test_a_sender_waits_for_room_in_order_and_not_longer_than_it_may(
    redis_url: str, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    app = limited(redis_url, 2, overflow="block", overflow_timeout=20)
    sender = threading.Thread(target=lambda: app.send_many(("t.a", (n,), None, {"queue": "mail"}) for n in range(9)))
    sender.start()
    seen: list[Any] = []
    until = time.monotonic() + 15
    while len(seen) < 9 and time.monotonic() < until:
        assert redis_client.llen("mail") <= 2  # type: ignore[operator]
        found = arguments(redis_client)
        if len(found) == 2 or (found and len(seen) > 6):
            seen += found[:1]
            redis_client.rpop("mail")
        time.sleep(0.002)
    sender.join(20)
    assert seen == [f"({number},)" for number in range(9)]
    assert "the queue 'mail' is full (2 messages): sending waits for room" in caplog.text

    impatient = limited(redis_url, 1, overflow="block", overflow_timeout=0.1)
    impatient.send_task("t.a", queue="mail")
    for options in ({}, {"unique_key": "k"}):
        began = time.monotonic()
        with pytest.raises(QueueFull):
            impatient.send_task("t.a", queue="mail", **options)
        assert time.monotonic() - began >= 0.1


def test_what_follows_or_is_given_back_is_never_refused(redis_url: str, redis_client: redis.Redis) -> None:
    app = limited(redis_url, 2)
    for number in range(2):
        app.send_task("t.a", (number,), queue="mail")
    consumer = Consumer(redis_url, ["mail"], "w@h:11112222:0")
    redis_client.zadd(keys.consumers("mail"), {consumer.name: 9e15})
    consumer.connect()
    (leased,) = consumer.turn((), 1).leased
    app.send_task("t.a", (2,), queue="mail")
    turn = consumer.turn([Settlement(0, leased.number, ("H", "mail", leased.messages[0], "L", "mail", b"next"), 2)], 0)
    assert not turn.failed
    assert redis_client.llen("mail") == 4
    consumer.close()


def test_kombus_queues_with_a_length_are_limited(redis_url: str) -> None:
    exchange = SimpleNamespace(name="ex", type="direct")
    by_name = SimpleNamespace(name="one", exchange=exchange, routing_key="k1", max_length=1)
    by_argument = SimpleNamespace(name="two", exchange=exchange, routing_key="k2", queue_arguments={"x-max-length": 1})
    for_rabbit = SimpleNamespace(name="three", exchange=exchange, routing_key="k3", max_priority=5)
    app = App("t", broker=redis_url, task_queues=[by_name, by_argument, for_rabbit], set_as_current=False)
    for queue, key in (("one", "k1"), ("two", "k2")):
        app.send_task("t.a", queue=queue)
        with pytest.raises(QueueFull):
            app.send_task("t.a", exchange="ex", routing_key=key)
    for priority in (0, 5, 9):
        app.send_task("t.a", queue="three", priority=priority)


@pytest.mark.parametrize("wrong", [{"max_length": -1}, {"max_length": "9"}, {"max_length": 1, "overflow": "drop-head"}])
def test_a_limit_that_is_none_is_an_error_that_says_so(redis_url: str, wrong: dict[str, Any]) -> None:
    app = App("t", broker=redis_url, task_queues={"mail": wrong}, set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match="cannot limit the queue 'mail'"):
        app.send_task("t.a", queue="mail")


class CutPublishes(CutAfterForward):
    """Cuts connections that carry the script of publishing."""

    def _due(self, data: bytes) -> bool:
        if PUBLISH.sha.encode() not in data or self.strikes >= self.limit:
            return False
        self.strikes += 1
        return True


def test_a_part_of_many_whose_answer_was_lost_is_not_sent_twice(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    proxy = CutPublishes(redis_server.port, 2)
    app = limited(f"redis://127.0.0.1:{proxy.port}/0", 5)
    redis_client.script_load(PUBLISH.text)
    app.send_task("t.first", queue="free")
    try:
        with pytest.raises(QueueFull) as caught:
            app.send_many(("t.a", (n,), None, {"queue": "mail"}) for n in range(8))
    finally:
        proxy.close()
    assert proxy.strikes == 2
    assert caught.value.sent == 5
    assert arguments(redis_client) == [f"({number},)" for number in range(5)]
