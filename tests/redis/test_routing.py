"""Where a call goes that names an exchange: to every queue that anybody has bound to it, or to an error."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from opsq import App, Broadcast, Exchange, Queue, binding, group, signals
from opsq.exceptions import ImproperlyConfigured, OperationalError, QueueFull, QueueNotFound
from opsq.protocol.routing import topic_pattern

BINDING, SEPARATOR = "_kombu.binding.", "\x06\x16"


def app_of(url: str, *queues: Any, **conf: Any) -> App:
    return App("t", broker=url, task_queues=list(queues) or None, set_as_current=False, **conf)


def declare(url: str, *queues: Any) -> None:
    """Another program declares queues, as it does when it sends something there."""
    other = app_of(url, *queues)
    for name in other.queues():
        other.broker.make_known(name, 0)


def waiting(client: redis.Redis, *queues: str) -> dict[str, list[Any]]:
    """The first arguments of what waits in each queue, the oldest first."""
    return {
        queue: [body(raw)[0][0] for raw in reversed(raws(client, queue))] for queue in queues if raws(client, queue)
    }


def raws(client: redis.Redis, queue: str) -> list[bytes]:
    found: Any = client.lrange(queue, 0, -1)
    return list(found)


def body(raw: bytes) -> Any:
    return json.loads(base64.b64decode(json.loads(raw)["body"]))


def test_every_queue_that_is_bound_gets_it_though_the_caller_declares_none(
    redis_url: str, redis_client: redis.Redis
) -> None:
    exchange = Exchange("orders")
    declare(
        redis_url, Queue("billing", exchange, "new"), Queue("stock", exchange, "new"), Queue("rest", exchange, "old")
    )
    app_of(redis_url).send_task("t.a", (1,), exchange="orders", routing_key="new")
    assert waiting(redis_client, "billing", "stock", "rest") == {"billing": [1], "stock": [1]}
    one, other = (json.loads(raws(redis_client, queue)[0])["properties"] for queue in ("billing", "stock"))
    assert one["delivery_info"] == other["delivery_info"] == {"exchange": "orders", "routing_key": "new"}
    assert one["delivery_tag"] != other["delivery_tag"]


def test_words_of_a_topic_fit_by_wildcards(redis_url: str, redis_client: redis.Redis) -> None:
    exchange = Exchange("logs", type="topic")
    keys = {"all": "#", "web": "web.#", "errors": "*.error", "exact": "web.error"}
    declare(redis_url, *(Queue(name, exchange, key) for name, key in keys.items()))
    members: Any = redis_client.smembers(f"{BINDING}logs")
    assert f"web.#{SEPARATOR}^web\\..*?${SEPARATOR}web".encode() in members
    assert members == redis_client.smembers("_kombu.binding_permanent.logs")
    app = app_of(redis_url)
    for number, key in enumerate(["web.error", "web.access.slow", "db.error", "db"]):
        app.send_task("t.a", (number,), exchange="logs", routing_key=key)
    assert waiting(redis_client, *keys) == {"all": [0, 1, 2, 3], "web": [0, 1], "errors": [0, 2], "exact": [0]}


@pytest.mark.parametrize(
    ("key", "pattern"),
    [("logs.#", r"^logs\..*?$"), ("a.*", r"^a\.[^\.]+$"), ("#", "^.*?$"), ("a-b.c d", r"^a\-b\.c\ d$")],
)
def test_patterns_are_kombus(key: str, pattern: str) -> None:
    assert topic_pattern(key) == pattern


def test_a_route_to_a_queue_on_a_topic_goes_through_the_topic(redis_url: str, redis_client: redis.Redis) -> None:
    exchange = Exchange("feeds", "topic")
    queues = Queue("feed", exchange, "feed.#"), Queue("audit", exchange, "#"), Queue("plain")
    routes = {"t.import": {"queue": "feed", "routing_key": "feed.import"}, "t.any": "feed", "t.plain": "plain"}
    app = app_of(redis_url, *queues, task_routes=routes)
    for number, name in enumerate(["t.import", "t.any", "t.plain"]):
        app.send_task(name, (number,))
    app.send_task("t.a", (3,), queue="feed", routing_key="other")
    assert waiting(redis_client, "feed", "audit", "plain") == {"feed": [0, 1], "audit": [0, 1, 3], "plain": [2]}


def test_a_queue_that_is_named_with_its_exchange_and_key_is_bound_so(redis_url: str, redis_client: redis.Redis) -> None:
    app = app_of(redis_url)
    app.conf.task_routes = {"t.feed": {"queue": "feeds", "exchange": "feeds", "routing_key": "feeds"}}
    for number in (1, 2):
        app.send_task("t.feed", (number,))
        redis_client.delete(f"{BINDING}feeds")
    assert waiting(redis_client, "feeds") == {"feeds": [1, 2]}
    with pytest.raises(QueueNotFound):
        app.send_task("t.a", (3,), queue="feeds", exchange="feeds", routing_key="other")


def test_what_no_queue_is_bound_to_is_an_error_that_says_so(redis_url: str, redis_client: redis.Redis) -> None:
    app = app_of(redis_url, Queue("billing", Exchange("orders"), "new"))
    for exchange, key in (("orders", "typo"), ("none", "new")):
        with pytest.raises(QueueNotFound, match=f"cannot send the task to exchange '{exchange}' with key '{key}'"):
            app.send_task("t.a", exchange=exchange, routing_key=key)
    with pytest.raises(QueueNotFound):
        app.send_many([("t.a", (1,)), ("t.a", (2,), None, {"exchange": "none", "routing_key": "x"})])
    assert not redis_client.keys("celery*")


def test_queues_are_read_in_each_of_their_forms(redis_url: str, redis_client: redis.Redis) -> None:
    old = {
        "default": {"exchange": "default", "binding_key": "default"},
        "feed": {"exchange": "feeds", "exchange_type": "topic", "routing_key": "feed.#"},
        "plain": None,
    }
    exchanges = [SimpleNamespace(name=name, type="direct") for name in ("ex1", "ex2")]
    bound = [SimpleNamespace(exchange=exchange, routing_key="k") for exchange in exchanges]
    of_kombu = SimpleNamespace(name="both", exchange=None, routing_key="", alias="two", bindings=bound)
    ours = Queue("several", [binding(Exchange("ex1"), "k"), binding("ex3", "k")])
    for queues in (old, [of_kombu, ours]):
        app = App("t", broker=redis_url, task_queues=queues, set_as_current=False)
        app.send_many(("t.a", (0,), None, {"queue": name}) for name in app.queues())
    app.send_task("t.a", (9,), queue="two")
    other = app_of(redis_url)
    for number, exchange in enumerate(["feeds", "ex1", "ex2", "ex3", "default"], 1):
        key = {"feeds": "feed.x", "default": "default"}.get(exchange, "k")
        other.send_task("t.a", (number,), exchange=exchange, routing_key=key)
    found = waiting(redis_client, "default", "feed", "plain", "both", "several")
    assert found == {"default": [0, 5], "feed": [0, 1], "plain": [0], "both": [0, 9, 2, 3], "several": [0, 2, 4]}
    bound: Any = redis_client.smembers(f"{BINDING}celery")
    assert f"plain{SEPARATOR}{SEPARATOR}plain".encode() in bound


@pytest.mark.parametrize("name", ["proj#workerQueue@default", "a b", "ü.*", "x{y}z", "1"])
def test_names_may_have_any_characters(redis_url: str, redis_client: redis.Redis, name: str) -> None:
    declare(
        redis_url, Queue(name, Exchange(f"ex {name}"), name), Queue(f"t {name}", Exchange(f"top {name}", "topic"), name)
    )
    app = app_of(redis_url, task_routes={f"t.{name}": {"queue": name}})
    app.send_task(f"t.{name}", (0,))
    app.send_task("t.a", (1,), exchange=f"ex {name}", routing_key=name)
    app.send_task("t.a", (2,), exchange=f"top {name}", routing_key=name.replace("*", "b"))
    assert waiting(redis_client, name, f"t {name}") == {name: [0, 1], f"t {name}": [2]}


def test_each_copy_is_what_a_call_to_its_queue_is(redis_url: str, redis_client: redis.Redis) -> None:
    exchange = Exchange("orders")
    queues = Queue("billing", exchange, "new"), Queue("stock", exchange, "new", max_length=2)
    app, where = app_of(redis_url, *queues), {"exchange": "orders", "routing_key": "new"}
    redis_client.zadd("opsq:consumers:{billing}", {"somebody": 2**53})
    app.send_task("t.a", (1,), eta=datetime(2040, 1, 1, tzinfo=UTC), priority=9, **where)
    assert redis_client.zcard("opsq:delayed:{billing}") == 1
    assert len(raws(redis_client, f"stock{SEPARATOR}9")) == 1
    app.send_task("t.a", (2,), **where)
    with pytest.raises(QueueFull, match="'stock' is full"):
        app.send_task("t.a", (3,), **where)
    with pytest.raises(
        ImproperlyConfigured, match="unique or debounced call to exchange 'orders': it reaches 2 queues"
    ):
        app.send_task("t.a", unique_key="k", **where)
    declare(redis_url, Queue("alone", Exchange("single"), "x"))
    first = app.send_task("t.a", (4,), unique_key="k", exchange="single", routing_key="x")
    assert app.send_task("t.a", (5,), unique_key="k", exchange="single", routing_key="x").id == first.id


def test_many_calls_ask_once_for_the_bindings(redis_url: str, redis_client: redis.Redis) -> None:
    exchange = Exchange("orders")
    declare(redis_url, Queue("billing", exchange, "new"), Queue("stock", exchange, "new"))
    app, where = app_of(redis_url), {"exchange": "orders", "routing_key": "new"}

    def looks() -> int:
        told: Any = redis_client.info("commandstats")
        return int(told.get("cmdstat_smembers", {}).get("calls", 0))

    before = looks()
    app.send_many(("t.a", (number,), None, dict(where) if number % 2 else None) for number in range(400))
    group(app.signature("t.a", (number,), options=dict(where)) for number in range(400, 500)).apply_async()
    assert looks() - before == 2
    expected = [*range(1, 400, 2), *range(400, 500)]
    found = waiting(redis_client, "billing", "stock", "celery")
    assert found == {"billing": expected, "stock": expected, "celery": list(range(0, 400, 2))}


def test_a_call_without_an_exchange_asks_for_no_bindings(redis_url: str, redis_client: redis.Redis) -> None:
    app = app_of(redis_url, Queue("mail", Exchange("orders"), "new"), task_routes={"t.*": "mail"})
    app.send_task("t.a", (0,))
    redis_client.config_resetstat()
    for number in range(5):
        app.send_task("t.a", (number,))
    told: Any = redis_client.info("commandstats")
    assert set(told) <= {"cmdstat_lpush", "cmdstat_config|resetstat"}


def test_a_broadcast_is_published_to_who_listens(redis_url: str, redis_client: redis.Redis) -> None:
    app = app_of(redis_url, Broadcast("news"), Queue("celery"), task_routes={"t.reload": {"queue": "news"}})
    with pytest.raises(QueueNotFound, match="no worker listens to this broadcast"):
        app.send_task("t.reload", (0,))
    with redis_client.pubsub() as ears:
        ears.psubscribe("/0.news/celery")
        assert ears.get_message(timeout=5)
        app.send_task("t.reload", (1,))
        app.send_task("t.a", (2,), exchange="news")
        app.send_many([("t.a", (3,)), ("t.reload", (4,)), ("t.reload", (5,))])
        heard: list[Any] = [ears.get_message(timeout=5) for _ in range(4)]
    assert [body(message["data"])[0] for message in heard] == [[1], [2], [4], [5]]
    assert json.loads(heard[0]["data"])["properties"]["delivery_info"] == {"exchange": "news", "routing_key": "celery"}
    assert waiting(redis_client, "celery") == {"celery": [3]}
    with pytest.raises(ImproperlyConfigured, match="each worker gets a copy"):
        app.send_task("t.reload", unique_key="k")


def test_who_does_not_declare_a_broadcast_reaches_it_too(redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.sadd(f"{BINDING}news", f"other{SEPARATOR}{SEPARATOR}bcast.1234")
    app = app_of(redis_url)
    with redis_client.pubsub() as ears:
        ears.psubscribe("/0.news/other", "/0.plain")
        for _ in range(2):
            assert ears.get_message(timeout=5)
        app.send_task("t.a", (1,), exchange="news", routing_key="mine")
        app.send_task("t.a", (2,), exchange="plain", exchange_type="fanout")
        heard: list[Any] = [ears.get_message(timeout=5) for _ in range(2)]
    assert [message["channel"] for message in heard] == [b"/0.news/other", b"/0.plain"]
    assert not raws(redis_client, "bcast.1234")


def test_a_route_may_say_the_type_and_tables_functions_and_lists_are_asked_in_turn(
    redis_url: str, redis_client: redis.Redis
) -> None:
    declare(redis_url, Queue("web", Exchange("logs", "topic"), "web.#"))

    def by_argument(name: str, args: Any, *_more: Any, **_named: Any) -> Any:
        return {"queue": f"user{args[0]}"} if name == "t.user" else None

    routes = [
        {"t.log": {"exchange": "logs", "exchange_type": "topic", "routing_key": "web.x"}},
        by_argument,
        {"t.*": "rest"},
    ]
    app = app_of(redis_url, task_routes=routes)
    for number, name in enumerate(["t.log", "t.user", "t.other"]):
        app.send_task(name, (number,))
    assert waiting(redis_client, "web", "user1", "rest") == {"web": [0], "user1": [1], "rest": [2]}


def test_signals_and_errors_of_a_lost_broker_are_those_of_any_call(redis_url: str, free_port: Any) -> None:
    declare(redis_url, Queue("billing", Exchange("orders"), "new"))
    told: list[Any] = []

    def before(exchange: str, routing_key: str, **_more: Any) -> None:
        told.append((exchange, routing_key))

    signals.before_task_publish.connect(before)
    try:
        app_of(redis_url).send_task("t.a", exchange="orders", routing_key="new")
        away = app_of(f"redis://127.0.0.1:{free_port()}/0", task_publish_retry=False)
        with pytest.raises(OperationalError, match="cannot send the task"):
            away.send_task("t.a", exchange="orders", routing_key="new")
    finally:
        signals.before_task_publish.disconnect(before)
    assert told == [("orders", "new")] * 2


def test_a_type_that_redis_does_not_have_is_refused(redis_url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"type .headers.*direct, topic, fanout"):
        app_of(redis_url, SimpleNamespace(name="q", exchange=SimpleNamespace(name="ex", type="headers"))).send_task(
            "t.a"
        )
    with pytest.raises(ValueError, match="direct, topic, fanout"):
        Exchange("ex", "headers")
