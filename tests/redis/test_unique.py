"""Unique and debounced calls: what is in Redis after `delay`, `apply_async` and `send_many`."""

from __future__ import annotations

import base64
import json
import threading
import time
from typing import Any

import pytest
import redis
from support.proxy import CutAfterForward
from support.redis_server import RedisServer

from opsq import App, signals
from opsq.broker.outgoing import CLAIM
from opsq.exceptions import ImproperlyConfigured, OpsqError

FAR = 2**53


@pytest.fixture
def app(redis_url: str) -> App:
    return App("t", broker=redis_url, set_as_current=False)


def waiting(client: redis.Redis, queue: str = "celery") -> list[dict[str, Any]]:
    """What waits, the oldest first."""
    raws: Any = client.lrange(queue, 0, -1)
    return [json.loads(raw) for raw in reversed(raws)]


def delayed(client: redis.Redis, queue: str = "celery") -> list[tuple[dict[str, Any], float]]:
    """What is for later: message and due time (Unix seconds)."""
    found: Any = client.zrange(f"opsq:delayed:{{{queue}}}", 0, -1, withscores=True)
    return [(json.loads(member.partition(b"|")[2]), score / 1000) for member, score in found]


def arguments(message: dict[str, Any]) -> list[Any]:
    return json.loads(base64.b64decode(message["body"]))[0]  # type: ignore[no-any-return]


# -- unique -----------------------------------------------------------------------------------------------------------


def test_a_second_call_gets_the_handle_of_the_first(app: App, redis_client: redis.Redis) -> None:
    @app.task(name="t.report", unique=True)
    def report(user: int, kind: str = "plain") -> None: ...

    first = report.delay(1)
    same = [report.delay(1), report.delay(user=1), report.delay(1, "plain"), report.apply_async((1,), queue="other")]
    assert {each.id for each in same} == {first.id}
    others = {report.delay(2).id, report.delay(1, "full").id}
    assert len({first.id, *others}) == 3
    assert waiting(redis_client)[0]["headers"]["id"] == first.id
    assert len(waiting(redis_client)) == 3
    assert not redis_client.exists("other")


@pytest.mark.parametrize(
    ("rule", "key"),
    [("user-{user}", "user-7"), ("{user[0]}{more}", None), (lambda user, **_: f"f{user}", "f7"), ("all", "all")],
)
def test_a_key_is_made_of_a_text_or_by_a_function(app: App, redis_client: redis.Redis, rule: Any, key: str) -> None:
    @app.task(name="t.report", unique=rule)
    def report(user: int, **more: Any) -> None: ...

    if key is None:
        with pytest.raises(ImproperlyConfigured, match="cannot make a key of unique"):
            report.delay(7)
        return
    first = report.delay(7, a=1)
    assert report.delay(7, a=2).id == first.id
    assert redis_client.get(f"opsq:unique:t.report:{key}") == first.id.encode()
    assert waiting(redis_client)[0]["headers"]["x-opsq-unique"] == f"t.report:{key}"


def test_a_key_may_be_said_with_the_call_and_ends_with_its_time(app: App, redis_client: redis.Redis) -> None:
    first = app.send_task("t.any", (1,), unique_key="k" * 500, unique_for=100)
    assert app.send_task("t.any", (2,), unique_key="k" * 500).id == first.id
    assert app.send_task("t.other", unique_key="k" * 500).id != first.id
    keys: list[Any] = list(redis_client.scan_iter("opsq:unique:t.any:*"))
    assert len(keys) == 1
    assert len(keys[0]) < 100
    assert 95_000 < redis_client.pttl(keys[0]) <= 100_000
    redis_client.delete(*keys)
    assert app.send_task("t.any", (3,), unique_key="k" * 500).id != first.id


def test_a_unique_call_for_later_keeps_its_key_until_then_and_longer(app: App, redis_client: redis.Redis) -> None:
    redis_client.zadd("opsq:consumers:{celery}", {"somebody": FAR})
    first = app.send_task("t.any", unique_key="k", unique_for=100, countdown=1000)
    assert app.send_task("t.any", unique_key="k").id == first.id
    assert [message["headers"]["id"] for message, _due in delayed(redis_client)] == [first.id]
    assert 1_090_000 < redis_client.pttl("opsq:unique:t.any:k") <= 1_100_000


def test_many_calls_are_unique_too_and_keep_their_order(app: App, redis_client: redis.Redis) -> None:
    @app.task(name="t.report", unique="{user}")
    def report(user: int) -> None: ...

    calls: list[Any] = [("t.plain", (0,)), (report, (1,)), ("t.plain", (2,)), (report, (1,)), ("t.plain", (4,))]
    results = app.send_many(calls)
    assert results[1].id == results[3].id
    assert [arguments(message) for message in waiting(redis_client)] == [[0], [1], [2], [4]]


@pytest.mark.parametrize("options", [{"group_id": "g"}, {"chord": {"task": "body"}}, {"chain": [{"task": "next"}]}])
def test_what_others_wait_for_is_always_sent(app: App, redis_client: redis.Redis, options: dict[str, Any]) -> None:
    @app.task(name="t.report", unique=True)
    def report() -> None: ...

    ids = {report.delay().id, report.apply_async(**options).id, report.apply_async(**options).id}
    assert len(ids) == len(waiting(redis_client)) == 3


def test_of_many_threads_one_sends(app: App, redis_client: redis.Redis) -> None:
    found: list[str] = []
    barrier = threading.Barrier(8)

    def send() -> None:
        barrier.wait()
        found.extend(app.send_task("t.any", unique_key=f"{number}").id for number in range(50))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 400
    assert len(set(found)) == len(waiting(redis_client)) == 50


class CutClaims(CutAfterForward):
    """Cuts connections that carry the script of claims."""

    def _due(self, data: bytes) -> bool:
        if CLAIM.sha.encode() not in data or self.strikes >= self.limit:
            return False
        self.strikes += 1
        return True


@pytest.mark.parametrize("debounce", [None, 60])
def test_a_lost_answer_does_not_make_the_caller_think_that_another_call_stands_for_its_own(
    redis_server: RedisServer, redis_client: redis.Redis, debounce: float | None
) -> None:
    proxy = CutClaims(redis_server.port, 2)
    app = App("t", broker=f"redis://127.0.0.1:{proxy.port}/0", set_as_current=False)
    app.send_task("t.any")
    redis_client.script_load(CLAIM.text)
    told = []

    def after(headers: Any, **_more: Any) -> None:
        told.append(headers["id"])

    signals.after_task_publish.connect(after)
    try:
        for _ in range(3):
            result = app.send_task("t.any", unique_key="k", task_id="mine", debounce=debounce)
            assert result.id == "mine"
    finally:
        proxy.close()
        signals.after_task_publish.disconnect(after)
    assert proxy.strikes == 2
    assert told[0] == "mine"
    messages = [message for message, _due in delayed(redis_client)] if debounce else waiting(redis_client)[1:]
    assert [message["headers"]["id"] for message in messages] == ["mine"]


def test_arguments_that_make_no_key_are_an_error_that_says_what_to_do(app: App) -> None:
    app.conf.task_serializer = "pickle"

    @app.task(name="t.report", unique=True)
    def report(value: Any) -> None: ...

    with pytest.raises(OpsqError, match=r"cannot make a key of the arguments of t\.report") as caught:
        report.delay({1, 2})
    assert "function" in caught.value.hint
    with pytest.raises(TypeError, match="must be a str"):
        app.send_task("t.any", unique_key=5)


# -- debounced --------------------------------------------------------------------------------------------------------


def test_the_last_call_wins_after_some_quiet_and_all_have_one_handle(app: App, redis_client: redis.Redis) -> None:
    @app.task(name="t.index", unique="{document}", debounce=60)
    def index(document: int, text: str) -> None: ...

    first = index.delay(1, "a")
    [(_message, due)] = delayed(redis_client)
    assert due == pytest.approx(time.time() + 60, abs=5)
    same = [index.apply_async((1, text), debounce=debounce).id for text, debounce in (("b", 90), ("c", 120))]
    assert same == [first.id, first.id]
    [(message, due)] = delayed(redis_client)
    assert arguments(message) == [1, "c"]
    assert due == pytest.approx(time.time() + 120, abs=5)
    for name in ("id", "root_id"):
        assert message["headers"][name] == first.id
    assert message["properties"]["correlation_id"] == first.id
    assert index.delay(2, "a").id != first.id
    assert len(delayed(redis_client)) == 2
    assert not waiting(redis_client)


def test_a_call_after_the_first_is_due_is_one_of_its_own(app: App, redis_client: redis.Redis) -> None:
    send = app.send_task
    first = send("t.index", (1,), unique_key="k", debounce=60)
    redis_client.zpopmin("opsq:delayed:{celery}")  # a worker has put it into its list
    second = send("t.index", (2,), unique_key="k", debounce=60)
    third = send("t.index", (3,), unique_key="k", debounce=60)
    assert first.id != second.id == third.id
    [(message, _due)] = delayed(redis_client)
    assert arguments(message) == [3]


def test_two_debounced_messages_of_one_moment_are_told_apart(app: App, redis_client: redis.Redis) -> None:
    send = app.send_task
    ids = {key: send("t.index", (key,), unique_key=key, debounce=60).id for key in "abcdef"}
    [(_, due), *_others] = delayed(redis_client)
    for member, _score in redis_client.zrange("opsq:delayed:{celery}", 0, -1, withscores=True):  # type: ignore[union-attr]
        redis_client.zadd("opsq:delayed:{celery}", {member: int(due * 1000)})
    for key in "abcdef":
        name = f"opsq:debounced:{{celery}}:t.index:{key}"
        _when, tag, task_id = redis_client.get(name).decode().split("|")  # type: ignore[union-attr]
        redis_client.set(name, f"{int(due * 1000)}|{tag}|{task_id}", ex=100)
    for key in "ace":
        assert send("t.index", (key * 2,), unique_key=key, debounce=60).id == ids[key]
    assert sorted(arguments(message)[0] for message, _due in delayed(redis_client)) == ["aa", "b", "cc", "d", "ee", "f"]


def test_debounce_says_itself_when_a_call_is_due(app: App) -> None:
    with pytest.raises(ValueError, match="no countdown, no eta"):
        app.send_task("t.index", debounce=5, countdown=1)


def test_many_debounced_calls_become_one(app: App, redis_client: redis.Redis) -> None:
    results = app.send_many(("t.index", (n,), None, {"unique_key": "k", "debounce": 60}) for n in range(20))
    assert len({result.id for result in results}) == 1
    [(message, _due)] = delayed(redis_client)
    assert arguments(message) == [19]
    assert message["headers"]["id"] == results[0].id
