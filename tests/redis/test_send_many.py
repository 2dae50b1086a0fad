"""`app.send_many`: many calls in few round trips, each as a call of its own would be."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from support.proxy import CutAfterForward
from support.redis_server import RedisServer

from opsq import App, _state, signals
from opsq.exceptions import OperationalError
from opsq.execution.context import Context
from opsq.result import AsyncResult, EagerResult


@pytest.fixture
def app(redis_url: str) -> App:
    return App("t", broker=redis_url, set_as_current=False)


@pytest.fixture
def add(app: App) -> Any:
    @app.task(name="t.add")
    def add(x: int, y: int = 0) -> int:
        return x + y

    return add


def messages(client: redis.Redis, queue: str = "celery") -> list[dict[str, Any]]:
    """What waits, the oldest first, with bodies decoded."""
    found = []
    raws: Any = client.lrange(queue, 0, -1)
    for raw in reversed(raws):
        message = json.loads(raw)
        message["body"] = json.loads(base64.b64decode(message["body"]))
        found.append(message)
    return found


def commands(client: redis.Redis) -> int:
    """How many commands the server has carried out that put messages into lists."""
    told: Any = client.info("commandstats")
    return sum(told.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("lpush", "evalsha", "eval"))


def test_calls_stand_in_their_list_in_the_order_in_which_they_were_given(add: Any, redis_client: redis.Redis) -> None:
    results = add.app.send_many((add, (number,)) for number in range(1234))
    found = messages(redis_client)
    assert [message["body"][0] for message in found] == [[number] for number in range(1234)]
    assert [message["headers"]["id"] for message in found] == [result.id for result in results]
    assert all(isinstance(result, AsyncResult) and result.task_name == "t.add" for result in results)


def test_a_call_of_many_is_the_message_that_a_single_call_is(app: App, add: Any, redis_client: redis.Redis) -> None:
    options = {"task_id": "x%b", "priority": 9, "headers": {"a": 1}, "group_id": "g", "group_index": 3, "expires": 99}
    options |= {
        "chord": {"task": "body"},
        "link": {"task": "cb"},
        "root_id": "r",
        "mine": "kept",
        "compression": "zlib",
    }
    for single, several in (
        (lambda: add.delay(1, y="100 %b ü"), (add, (1,), {"y": "100 %b ü"})),
        (lambda: add.apply_async((1,), **options), (add, (1,), None, options)),
        (lambda: app.send_task("not.here", (1,)), ("not.here", (1,))),
        (lambda: add.apply_async((1,), queue="q"), {"task": "t.add", "args": (1,), "options": {"queue": "q"}}),
    ):
        redis_client.flushall()
        single()
        app.send_many([several])
        lists: list[Any] = [key for key in redis_client.scan_iter() if redis_client.type(key) == b"list"]  # type: ignore[union-attr]
        two: list[Any] = [json.loads(raw) for raw in redis_client.lrange(lists[0], 0, -1)]  # type: ignore[union-attr]
        assert len(two) == 2
        for message in two:
            assert len(message["properties"].pop("delivery_tag")) == 36
            if "task_id" not in (several[3] if isinstance(several, tuple) and len(several) > 3 else {}):
                assert message["headers"].pop("id") == message["properties"].pop("correlation_id")
                del message["headers"]["root_id"]
            message["headers"]["expires"] = str(message["headers"]["expires"])[:15]
            message["properties"].pop("expiration", None)
        assert two[0] == two[1]


def test_calls_go_where_routes_and_options_say(app: App, add: Any, redis_client: redis.Redis) -> None:
    app.conf.task_routes = {"t.mail": "mail"}
    calls = [("t.mail", (n,)) if n % 3 == 0 else (add, (n,), None, {"priority": 9 * (n % 3 - 1)}) for n in range(9)]
    app.send_many(calls)
    found = {
        queue: [m["body"][0][0] for m in messages(redis_client, queue)]
        for queue in ("mail", "celery", "celery\x06\x169")
    }
    assert found == {"mail": [0, 3, 6], "celery": [1, 4, 7], "celery\x06\x169": [2, 5, 8]}


def test_calls_for_later_wait_in_redis_if_opsq_consumes_the_queue(add: Any, redis_client: redis.Redis) -> None:
    eta = datetime(2030, 1, 2, tzinfo=UTC)
    add.app.send_many([(add, (1,), None, {"eta": eta}), (add, (2,))])
    assert [message["body"][0] for message in messages(redis_client)] == [[1], [2]]
    redis_client.zadd("opsq:consumers:{celery}", {"somebody": 2**53})
    add.app.send_many([(add, (n,), None, {"eta": eta, "priority": 3}) for n in range(3)] + [(add, (4,))])
    assert len(messages(redis_client)) == 3
    members: Any = redis_client.zrange("opsq:delayed:{celery}", 0, -1, withscores=True)
    assert [(member[:3], score) for member, score in members] == [(b"3|{", eta.timestamp() * 1000)] * 3


def test_many_are_few_commands_whatever_their_number(add: Any, redis_client: redis.Redis) -> None:
    before = commands(redis_client)
    add.app.send_many((add, (number,)) for number in range(2000))
    assert commands(redis_client) - before <= 4 + 1


def test_calls_with_a_retry_policy_of_their_own_go_together_too(add: Any, redis_client: redis.Redis) -> None:
    add.delay(0)
    before = commands(redis_client)
    own = [{"retry_policy": {"max_retries": 1}}] * 300 + [{"retry_policy": {"max_retries": 2}}] * 300
    add.app.send_many((add, (number,), None, dict(options)) for number, options in enumerate(own))
    assert commands(redis_client) - before <= 2 + 1
    assert redis_client.llen("celery") == 601


def test_a_million_calls_are_not_gathered_before_they_are_sent(add: Any, redis_client: redis.Redis) -> None:
    most = 0

    def calls() -> Iterator[Any]:
        nonlocal most
        for number in range(3000):
            waits: Any = redis_client.llen("celery") if number % 100 == 0 else number
            most = max(most, number - waits)
            yield "t.add", (number,)
        for number in range(4):
            before: Any = redis_client.llen("celery")
            assert number < 2 or before >= 3000
            yield "t.add", ("x" * 700_000,)

    add.app.send_many(calls())
    assert most <= 500


def test_arguments_are_checked_as_in_a_single_call_and_what_came_before_has_gone(
    add: Any, redis_client: redis.Redis
) -> None:
    with pytest.raises(TypeError, match="missing 1 required"):
        add.app.send_many([(add, (1,))] * 600 + [(add,)])
    assert len(messages(redis_client)) == 500
    with pytest.raises(TypeError, match="single tasks, not a chord"):
        add.app.send_many([{"task": "celery.chord", "subtask_type": "chord"}])
    with pytest.raises(TypeError, match="a call is"):
        add.app.send_many(["t.add"])


def test_calls_in_a_task_know_their_parent_and_are_its_children(add: Any, redis_client: redis.Redis) -> None:
    children: list[Any] = []
    task = SimpleNamespace(trail=True, name="parent", add_trail=children.append)
    token = _state.push_request(Context(task_object=task, called_directly=False, id='pa"rent', root_id="root"))
    try:
        results = add.app.send_many([(add, (1,)), ("t.other",)])
        add.delay(2)
    finally:
        _state.pop_request(token)
    assert [(m["headers"]["parent_id"], m["headers"]["root_id"]) for m in messages(redis_client)] == [
        ('pa"rent', "root")
    ] * 3
    assert children[:2] == results


def test_signals_and_events_tell_of_each(app: App, add: Any, redis_client: redis.Redis) -> None:
    app.conf.task_send_sent_event = True
    told: list[Any] = []

    def before(headers: Any, **_more: Any) -> None:
        headers["trace"] = headers["id"]

    def after(headers: Any, **_more: Any) -> None:
        told.append(headers["trace"])

    listener = redis_client.pubsub()
    listener.subscribe("/0.celeryev/task.sent")
    listener.get_message(timeout=5)
    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    try:
        ids = [result.id for result in app.send_many((add, (number,)) for number in range(5))]
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
    assert told == ids
    assert [message["headers"]["trace"] for message in messages(redis_client)] == ids
    events = [json.loads(listener.get_message(timeout=5)["data"]) for _ in ids]  # type: ignore[index]
    assert [json.loads(base64.b64decode(event["body"]))["uuid"] for event in events] == ids
    listener.close()


def test_eager_calls_run_here(add: Any) -> None:
    add.app.conf.task_always_eager = True
    results = add.app.send_many([(add, (1, 2)), (add, (3, 4))])
    assert [(type(result), result.get()) for result in results] == [(EagerResult, 3), (EagerResult, 7)]


class CutPublish(CutAfterForward):
    """Cuts each connection that carries this word, so often."""

    def __init__(self, port: int, word: bytes, limit: int) -> None:
        super().__init__(port, limit)
        self._word = word

    def _due(self, data: bytes) -> bool:
        if self._word not in data or self.strikes >= self.limit:
            return False
        self.strikes += 1
        return True


@pytest.mark.parametrize("later", [False, True])
def test_a_slice_whose_answer_was_lost_is_not_sent_twice(
    redis_server: RedisServer, redis_client: redis.Redis, later: bool
) -> None:
    if later:
        redis_client.zadd("opsq:consumers:{celery}", {"somebody": 2**53})
    proxy = CutPublish(redis_server.port, b"x-marked", 2)
    app = App("t", broker=f"redis://127.0.0.1:{proxy.port}/0", set_as_current=False)
    app.conf.task_publish_retry_policy = {"max_retries": 5, "interval_start": 0.05}
    try:
        calls = [("t.a", (n,), None, {"headers": {"x-marked": n}, "priority": n % 2 * 9}) for n in range(20)]
        if later:
            calls = [(*call[:3], {**call[3], "countdown": 600}) for call in calls]  # type: ignore[dict-item]
        app.send_many(calls)
    finally:
        proxy.close()
    assert proxy.strikes == 2
    if later:
        assert redis_client.zcard("opsq:delayed:{celery}") == 20
    else:
        lists = [messages(redis_client, queue) for queue in ("celery", "celery\x06\x169")]
        assert [[m["body"][0][0] for m in found] for found in lists] == [list(range(0, 20, 2)), list(range(1, 20, 2))]


def test_an_error_says_how_many_calls_had_gone(redis_server: RedisServer, redis_client: redis.Redis) -> None:
    proxy = CutPublish(redis_server.port, b"the-last", 99)
    app = App("t", broker=f"redis://127.0.0.1:{proxy.port}/0", task_publish_retry=False, set_as_current=False)
    try:
        with pytest.raises(OperationalError, match="cannot send the task") as caught:
            app.send_many([("t.a",)] * 500 + [("t.a", ("the-last",), None, {"headers": {"at": "the-last"}})])
    finally:
        proxy.close()
    assert caught.value.sent == 500
    assert len(messages(redis_client)) >= 500


def test_a_list_that_is_none_is_an_error_and_no_retry(app: App, redis_client: redis.Redis) -> None:
    redis_client.set("mail", "a string")
    with pytest.raises(OperationalError, match="WRONGTYPE"):
        app.send_many([("t.a", (), None, {"queue": "mail"})])
    redis_client.delete("mail")
    app.send_many([("t.a",)] * 3)
    assert len(messages(redis_client)) == 3
