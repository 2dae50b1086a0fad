"""Results in Redis: what is stored and for how long, what AsyncResult makes of it."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from opsq import App, _state
from opsq.backends.base import encode_meta
from opsq.backends.redis import RedisBackend
from opsq.exceptions import ImproperlyConfigured, IncompleteStream, TaskRevokedError, TimeoutError
from opsq.execution.context import Context
from opsq.result import allow_join_result
from opsq.result.raising import RemoteTraceback


@pytest.fixture
def app(redis_url: str) -> App:
    """An app that keeps its results in the clean database."""
    return App("proj", broker=redis_url, backend=redis_url, set_as_current=False)


def put(app: App, task_id: str, state: str, value: Any, traceback: str | None = None, children: Any = ()) -> None:
    """Store a state as a worker does."""
    request = Context(id=task_id, children=[app.AsyncResult(child) for child in children])
    data = app.backend.record(request, state, value, traceback)
    app.backend.store_records([(app.backend.key(task_id), app.backend.ttl_s, data)])


def test_a_value_comes_back(app: App) -> None:
    put(app, "t1", "SUCCESS", {"a": [1, None]})
    result = app.AsyncResult("t1")
    assert result.get(timeout=5) == {"a": [1, None]}
    assert (result.state, result.ready(), result.successful()) == ("SUCCESS", True, True)
    assert result.date_done is not None
    assert datetime.now(UTC) - result.date_done < timedelta(seconds=10)


def test_an_error_comes_back_with_its_class_and_where_it_happened(app: App) -> None:
    put(app, "t1", "FAILURE", ValueError("bad", 42), "Traceback (most recent call last): there\n")
    result = app.AsyncResult("t1")
    with pytest.raises(ValueError) as caught:
        result.get(timeout=5)
    assert caught.value.args == ("bad", 42)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "there" in str(caught.value.__cause__)
    assert (result.failed(), result.traceback) == (True, "Traceback (most recent call last): there\n")
    assert isinstance(result.get(propagate=False), ValueError)


def test_a_revoked_task_raises(app: App) -> None:
    put(app, "t1", "REVOKED", TaskRevokedError("expired"))
    with pytest.raises(TaskRevokedError, match="expired"):
        app.AsyncResult("t1").get(timeout=5)


def test_an_unknown_one_is_pending(app: App) -> None:
    result = app.AsyncResult("t1")
    assert (result.state, result.result, result.ready(), result.exists()) == ("PENDING", None, False, False)
    assert result.children is None
    with pytest.raises(TimeoutError):
        result.get(timeout=0.05)


def test_what_is_not_final_is_asked_again(app: App) -> None:
    result = app.AsyncResult("t1")
    app.backend.store("t1", "PROGRESS", {"done": 1})
    assert (result.state, result.info) == ("PROGRESS", {"done": 1})
    app.backend.store("t1", "PROGRESS", {"done": 2})
    assert result.info == {"done": 2}
    put(app, "t1", "SUCCESS", 3)
    assert result.info == 3


def test_a_stored_success_is_not_overwritten_by_a_later_state(app: App) -> None:
    put(app, "t1", "SUCCESS", 1)
    app.backend.store("t1", "STARTED", None)
    assert app.AsyncResult("t1").get(timeout=5) == 1


def test_a_success_that_is_stored_at_the_same_moment_stays(app: App) -> None:
    """Others look and then write: what ends in between is lost to them."""
    now, told, stop = ["t0"], threading.Event(), threading.Event()

    def tell() -> None:
        while not stop.is_set():
            app.backend.store(now[0], "PROGRESS", {"current": 1})
            told.set()

    teller = threading.Thread(target=tell)
    teller.start()
    ids = [f"t{number}" for number in range(100)]
    try:
        for number, task_id in enumerate(ids):
            now[0] = task_id
            told.clear()
            told.wait(5)
            put(app, task_id, "SUCCESS", number)
    finally:
        stop.set()
        teller.join()
    assert [app.AsyncResult(task_id).state for task_id in ids] == ["SUCCESS"] * len(ids)


@pytest.mark.parametrize("value", ["x" * 5000, {"a": "y" * 5000}])
def test_what_is_large_is_stored_compressed_when_that_is_set(redis_url: str, redis_client: Any, value: Any) -> None:
    app = App("proj", broker=redis_url, backend=redis_url, set_as_current=False, result_compression="gzip")
    put(app, "large", "SUCCESS", value)
    put(app, "small", "SUCCESS", "x")
    assert len(redis_client.get("celery-task-meta-large")) < 500
    assert redis_client.get("celery-task-meta-small").startswith(b"{")
    assert [app.AsyncResult(each).get(timeout=5) for each in ("large", "small")] == [value, "x"]


def test_a_state_may_be_stored_from_elsewhere_by_id(app: App) -> None:
    @app.task(name="proj.report", shared=False)
    def report() -> None: ...

    report.update_state("t1", "HALFWAY", {"pages": 3})
    result = app.AsyncResult("t1")
    assert (result.state, result.info, result.ready()) == ("HALFWAY", {"pages": 3}, False)
    put(app, "t1", "SUCCESS", 7)
    report.update_state("t1", "HALFWAY", {"pages": 4})
    assert (result.state, result.get(timeout=5)) == ("SUCCESS", 7)


def test_several_are_read_at_once(app: App, redis_client: redis.Redis) -> None:
    put(app, "t1", "SUCCESS", 1)
    put(app, "t2", "PROGRESS", {"current": 2})
    redis_client.set("celery-task-meta-t3", b"nonsense", ex=60)
    found = app.backend.get_metas(["t1", "t2", "t3", "t4"])
    assert {task_id: meta["result"] for task_id, meta in found.items()} == {"t1": 1, "t2": {"current": 2}}


def test_callback_and_messages_are_told(app: App) -> None:
    put(app, "t1", "SUCCESS", 1)
    seen: list[Any] = []
    result = app.AsyncResult("t1")
    result.then(lambda ended: seen.append(("then", ended.id)))
    result.get(timeout=5, callback=lambda *told: seen.append(told), on_message=lambda meta: seen.append(meta["status"]))
    assert seen == ["SUCCESS", ("then", "t1"), ("t1", 1)]


def test_forgotten_is_gone(app: App, redis_client: redis.Redis) -> None:
    put(app, "t1", "SUCCESS", 1)
    result = app.AsyncResult("t1")
    assert result.get(timeout=5) == 1
    result.forget()
    assert redis_client.dbsize() == 0
    assert result.state == "PENDING"


def test_children_make_a_tree(app: App) -> None:
    put(app, "t1", "SUCCESS", 1, children=["t2", "t3"])
    put(app, "t2", "SUCCESS", 2)
    result = app.AsyncResult("t1")
    assert result.children == ["t2", "t3"]
    with pytest.raises(IncompleteStream):
        list(result.iterdeps())
    put(app, "t3", "SUCCESS", 3)
    assert [(each.id, value) for each, value in result.collect(timeout=5)] == [("t1", 1), ("t2", 2), ("t3", 3)]
    assert result.get_leaf() == 3


def test_an_error_of_the_step_before_is_raised_at_once(app: App) -> None:
    put(app, "t1", "FAILURE", KeyError("first"))
    result = app.AsyncResult("t2", parent=app.AsyncResult("t1"))
    begin = time.monotonic()
    with pytest.raises(KeyError, match="first"):
        result.get(timeout=10)
    assert time.monotonic() - begin < 5


def test_inside_a_task_waiting_is_refused_unless_allowed(app: App) -> None:
    put(app, "t1", "SUCCESS", 1)
    token = _state.push_request(Context(id="outer", called_directly=False))
    try:
        with pytest.raises(RuntimeError, match="within a task"):
            app.AsyncResult("t1").get(timeout=5)
        assert app.AsyncResult("t1").get(timeout=5, disable_sync_subtasks=False) == 1
        with allow_join_result():
            assert app.AsyncResult("t1").get(timeout=5) == 1
    finally:
        _state.pop_request(token)


def test_a_broker_without_a_place_for_results_is_said_at_once(redis_url: str) -> None:
    app = App("proj", broker=redis_url, set_as_current=False)
    begin = time.monotonic()
    for ask in (lambda result: result.get(timeout=10), lambda result: result.state):
        with pytest.raises(ImproperlyConfigured, match="results are not kept") as caught:
            ask(app.AsyncResult("t1"))
        assert "backend=" in caught.value.hint
    assert time.monotonic() - begin < 5
    app.backend.store("t1", "PROGRESS", 1)
    app.AsyncResult("t1").forget()


@pytest.mark.parametrize(
    ("settings", "success_s", "failure_s"),
    [
        ({}, 86_400, 86_400),
        ({"result_expires": 60}, 60, 60),
        ({"result_expires": timedelta(minutes=2), "result_failure_expires": 300}, 120, 300),
    ],
)
def test_results_live_as_long_as_the_settings_say(
    redis_url: str, redis_client: redis.Redis, settings: dict[str, Any], success_s: int, failure_s: int
) -> None:
    app = App("proj", broker=redis_url, backend=redis_url, set_as_current=False, **settings)
    app.backend.store("t1", "SUCCESS", 1)
    app.backend.store("t2", "FAILURE", ValueError("x"))
    assert success_s - 5 < redis_client.ttl("celery-task-meta-t1") <= success_s
    assert failure_s - 5 < redis_client.ttl("celery-task-meta-t2") <= failure_s
    request = Context(id="t3")
    assert app.backend.writes(request, "SUCCESS", 1)[::2] == ("celery-task-meta-t3", success_s)
    assert app.backend.writes(request, "FAILURE", ValueError("x"))[2] == failure_s


def test_results_that_never_expire_have_no_time_to_live(redis_url: str, redis_client: redis.Redis) -> None:
    app = App("proj", broker=redis_url, backend=redis_url, set_as_current=False)
    app.conf.result_expires = None
    app.backend.store("t1", "SUCCESS", 1)
    assert redis_client.ttl("celery-task-meta-t1") == -1
    redis_client.delete("celery-task-meta-t1")


def test_a_prefix_of_the_results_is_kept_apart_by_an_underscore(redis_url: str, redis_client: redis.Redis) -> None:
    options = {"global_keyprefix": "acme"}
    app = App("p", broker=redis_url, backend=redis_url, set_as_current=False, result_backend_transport_options=options)
    app.backend.store("t1", "SUCCESS", 1)
    assert redis_client.keys() == [b"acme_celery-task-meta-t1"]
    assert app.AsyncResult("t1").get(timeout=5) == 1
    redis_client.flushdb()


def test_those_that_are_stored_can_be_listed(app: App) -> None:
    for number in range(5):
        put(app, f"t{number}", "SUCCESS", number)
    found, more = app.backend.stored()
    assert (sorted(task_id for task_id, _meta in found), more) == (["t0", "t1", "t2", "t3", "t4"], False)
    found, more = app.backend.stored(limit=2)
    assert (len(found), more) == (2, True)


def test_a_record_is_announced_as_it_is_stored(redis_url: str, redis_client: redis.Redis) -> None:
    backend = RedisBackend.of(redis_url, App("p", broker=redis_url, set_as_current=False).conf)
    listener = redis_client.pubsub()
    listener.subscribe(backend.key("t1"))
    assert listener.get_message(timeout=5) is not None
    data = encode_meta(backend.format, "t1", "SUCCESS", 1)
    backend.store_records([(backend.key("t1"), 60, data)])
    message = listener.get_message(timeout=5)
    listener.close()
    assert message is not None
    assert message["data"] == redis_client.get(backend.key("t1")) == data
    assert json.loads(data)["task_id"] == "t1"
