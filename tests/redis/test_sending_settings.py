"""Celery's settings about sending do what they say."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from support.proxy import Proxy
from support.redis_server import RedisServer

from opsq import App
from opsq.exceptions import OperationalError
from opsq.protocol import envelope


@pytest.fixture
def app(redis_url: str) -> App:
    return App("t", broker=redis_url, set_as_current=False)


def taken(client: redis.Redis, queue: str = "celery") -> envelope.Envelope:
    raw: Any = client.rpop(queue)
    assert raw is not None, client.keys("*")
    return envelope.parse(raw)


class Deaf:
    """A server that ends each connection; `times`: when somebody came."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self.times: list[float] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                self.times.append(time.monotonic())
                client.close()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def deaf() -> Iterator[Deaf]:
    server = Deaf()
    yield server
    server.close()


def tries(deaf: Deaf, options: dict[str, Any], **settings: Any) -> int:
    """How often a call that cannot be sent is tried, beginning with the first one."""
    app = App("t", broker=deaf.url, set_as_current=False, **settings)
    before = len(deaf.times)
    with pytest.raises(OperationalError, match="cannot send the task"):
        app.send_task("t.any", **options)
    return len(deaf.times) - before


AT_ONCE = {"interval_start": 0, "interval_step": 0, "interval_max": 0}


def test_a_publish_is_tried_again_as_the_policy_says(deaf: Deaf) -> None:
    assert tries(deaf, {}, task_publish_retry=False) == 1
    assert tries(deaf, {}, task_publish_retry_policy={"max_retries": 2, **AT_ONCE}) == 3
    assert tries(deaf, {"retry": False}, task_publish_retry_policy={"max_retries": 2, **AT_ONCE}) == 1
    assert tries(deaf, {"retry_policy": {"max_retries": 1}}, task_publish_retry_policy=AT_ONCE) == 2
    assert tries(deaf, {"retry": True, "retry_policy": AT_ONCE}, task_publish_retry=False) == 4


def test_between_two_tries_of_a_publish_is_the_pause_of_the_policy(deaf: Deaf) -> None:
    policy = {"max_retries": 3, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.3}
    assert tries(deaf, {}, task_publish_retry_policy=policy) == 4
    first, second, third, fourth = deaf.times
    assert second - first >= 0.08
    assert third - second >= 0.24
    assert fourth - third >= 0.24


class Closed(Proxy):
    """Turns away who comes, so often."""

    left = 8

    def connect(self, client: socket.socket) -> socket.socket | None:
        """A connection to the server, once it has opened."""
        if self.left:
            self.left -= 1
            client.close()
            return None
        return super().connect(client)


def test_a_broker_that_comes_back_while_it_is_tried_gets_the_call(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    proxy = Closed(redis_server.port, 0)
    app = App("t", broker=f"redis://127.0.0.1:{proxy.port}/0", set_as_current=False)
    app.conf.task_publish_retry_policy = {"max_retries": None, "interval_start": 0.01, "interval_max": 0.05}
    try:
        app.send_task("t.any")
    finally:
        proxy.close()
    assert taken(redis_client).headers.task == "t.any"


def test_the_default_priority_is_that_of_calls_that_say_none(app: App, redis_client: redis.Redis) -> None:
    app.conf.task_default_priority = 6

    @app.task(name="t.plain")
    def plain() -> None: ...

    @app.task(name="t.own", priority=3)
    def own() -> None: ...

    for send in (plain.delay, lambda: app.send_task("t.far"), lambda: app.send_many([("t.far",)])):
        send()
        assert taken(redis_client, "celery\x06\x166").properties.priority == 6
    own.delay()
    assert taken(redis_client, "celery\x06\x163").properties.priority == 3
    plain.apply_async(priority=0)
    assert taken(redis_client).properties.priority == 0


def test_bodies_are_compressed_by_default_if_that_is_set(app: App, redis_client: redis.Redis) -> None:
    app.conf.task_compression = "zlib"
    text = "x" * 5000
    app.send_task("t.any", (text,))
    app.send_task("t.any", (text,), compression="bzip2")
    for header in ("application/x-gzip", "application/x-bz2"):
        message = taken(redis_client)
        assert message.headers.compression == header
        assert len(message.body) < 200
        assert message.arguments(frozenset(["application/json"]))[0] == [text]


def test_the_serializer_of_bodies(app: App, redis_client: redis.Redis) -> None:
    app.conf.task_serializer = "msgpack"
    app.send_task("t.any", (b"\xff",))
    message = taken(redis_client)
    assert message.content_type == "application/x-msgpack"
    assert message.arguments(frozenset(["application/x-msgpack"]))[0] == [b"\xff"]


def test_the_default_queue_is_bound_as_its_settings_say(app: App, redis_client: redis.Redis) -> None:
    app.conf.update(task_default_queue="main", task_default_exchange="ex", task_default_routing_key="key")
    app.send_task("t.any", exchange="ex", routing_key="key")
    found = taken(redis_client, "main").properties.delivery_info
    assert (found.exchange, found.routing_key) == ("ex", "key")


def test_results_are_ignored_by_default_if_that_is_set(app: App, redis_client: redis.Redis) -> None:
    app.conf.task_ignore_result = True

    @app.task(name="t.plain")
    def plain() -> None: ...

    assert plain.delay().ignored
    assert taken(redis_client).headers.ignore_result is True
    plain.apply_async(ignore_result=False)
    assert taken(redis_client).headers.ignore_result is False


def test_events_of_sending_are_told_if_that_is_set(app: App, redis_client: redis.Redis) -> None:
    listener = redis_client.pubsub(ignore_subscribe_messages=True)
    listener.psubscribe("/0.celeryev/*")
    listener.get_message(timeout=5)
    app.send_task("t.quiet")
    app.conf.task_send_sent_event = True
    result = app.send_task("t.told", queue="mail", priority=3)
    told = None
    while told is None:
        told = listener.get_message(timeout=5)
    listener.close()
    event = json.loads(base64.b64decode(json.loads(told["data"])["body"]))
    assert (event["type"], event["uuid"], event["name"], event["queue"]) == ("task-sent", result.id, "t.told", "mail")


@pytest.mark.parametrize(
    "settings",
    [{"task_queue_max_priority": 5}, {"task_default_delivery_mode": 1}, {"task_default_queue_type": "quorum"}],
)
def test_what_only_rabbitmq_knows_changes_nothing(redis_url: str, redis_client: redis.Redis, settings: Any) -> None:
    App("t", broker=redis_url, set_as_current=False, **settings).send_task("t.any", priority=9)
    assert taken(redis_client, "celery\x06\x169").properties.priority == 9
