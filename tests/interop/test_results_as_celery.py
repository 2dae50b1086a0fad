"""Celery's AsyncResult reads what opsq has stored, and the other way round, whatever the settings of results say."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from support.celery_results import CelerysResults

from opsq import App
from opsq.execution.context import Context

ids = map(str, itertools.count())
ALL = ["json", "yaml", "msgpack", "pickle"]
SETTINGS: dict[str, dict[str, Any]] = {
    "json": {},
    "yaml": {"result_serializer": "yaml", "result_accept_content": ["yaml"]},
    "msgpack": {"result_serializer": "msgpack", "result_accept_content": ["msgpack"]},
    "pickle": {"result_serializer": "pickle", "result_accept_content": ["pickle"]},
    **{name: {"result_compression": name} for name in ("gzip", "bzip2", "lzma", "brotli", "zstd")},
    "all": {
        "result_compression": "zlib",
        "result_serializer": "pickle",
        "accept_content": ALL,
        "result_extended": True,
    },
}
CALL = {"name": "proj.add", "args": [2, 3], "kwargs": {"a": 1}, "worker": "celery@ours", "retries": 2, "queue": "mail"}


@pytest.fixture(scope="module")
def celery(celery_python: Path) -> Iterator[CelerysResults]:
    peer = CelerysResults(celery_python)
    yield peer
    peer.close()


@pytest.fixture
def clean(redis_client: redis.Redis) -> Iterator[None]:
    yield
    redis_client.flushdb()


def ours(url: str, settings: dict[str, Any]) -> App:
    return App("ours", broker=url, backend=url, set_as_current=False, **settings)


def store(app: App, task_id: str, value: Any, state: str = "SUCCESS") -> None:
    """As a worker does at the end of a run."""
    info = {"routing_key": "mail"}
    call = {"args": [2, 3], "kwargs": {"a": 1}, "hostname": "celery@ours", "retries": 2, "delivery_info": info}
    request = Context(id=task_id, task="proj.add", **call)
    traceback = "Traceback: ours\n" if isinstance(value, BaseException) else None
    key, data, ttl_s = app.backend.writes(request, state, value, traceback)
    app.backend.store_records([(key, ttl_s, data)])


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("size", [3, 5000])
def test_a_value_is_read_by_the_other_side(
    settings: dict[str, Any], size: int, celery: CelerysResults, redis_url: str
) -> None:
    app, value, task_id = ours(redis_url, settings), {"text": "ä" * size, "list": [1, None, 2.5]}, next(ids)
    store(app, task_id, value)
    found = celery.read(redis_url, settings, task_id)
    assert (found["state"], found["result"]) == ("SUCCESS", value)
    theirs = next(ids)
    celery.store(redis_url, settings, theirs, value)
    assert app.AsyncResult(theirs).get(timeout=5) == value


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("name", ["json", "yaml", "msgpack", "pickle"])
def test_an_error_is_read_by_the_other_side(name: str, celery: CelerysResults, redis_url: str) -> None:
    settings, task_id, theirs = SETTINGS[name], next(ids), next(ids)
    app = ours(redis_url, settings)
    store(app, task_id, ValueError("bad", 42), "FAILURE")
    found = celery.read(redis_url, settings, task_id)
    assert (found["state"], found["traceback"]) == ("FAILURE", "Traceback: ours\n")
    module, kind, args = found["result"]
    assert (module, kind, list(args)) == ("builtins", "ValueError", ["bad", 42])
    celery.store(redis_url, settings, theirs, KeyError("k"), "FAILURE")
    result = app.AsyncResult(theirs)
    with pytest.raises(KeyError) as caught:
        result.get(timeout=5)
    assert caught.value.args == ("k",)
    assert result.traceback == "Traceback: theirs\n"


@pytest.mark.usefixtures("clean")
def test_who_compresses_is_read_by_who_does_not(celery: CelerysResults, redis_url: str) -> None:
    for mine, other in (({"result_compression": "gzip"}, {}), ({}, {"result_compression": "bzip2"})):
        task_id, theirs = next(ids), next(ids)
        store(ours(redis_url, mine), task_id, "x" * 5000)
        assert celery.read(redis_url, other, task_id)["result"] == "x" * 5000
        celery.store(redis_url, mine, theirs, "y" * 5000)
        assert ours(redis_url, other).AsyncResult(theirs).get(timeout=5) == "y" * 5000


@pytest.mark.usefixtures("clean")
def test_the_call_is_read_by_the_other_side(celery: CelerysResults, redis_url: str) -> None:
    settings, task_id, theirs = {"result_extended": True}, next(ids), next(ids)
    app = ours(redis_url, settings)
    store(app, task_id, 5)
    found = celery.read(redis_url, {}, task_id)
    assert {name: found[name] for name in CALL} == CALL
    celery.store(redis_url, settings, theirs, 5)
    result = app.AsyncResult(theirs)
    assert {name: getattr(result, name) for name in CALL} == {**CALL, "worker": "celery@theirs"}


@pytest.mark.usefixtures("clean")
def test_a_state_of_the_programs_own_is_read_by_the_other_side(celery: CelerysResults, redis_url: str) -> None:
    task_id, theirs = next(ids), next(ids)
    app = ours(redis_url, {})
    told = {"current": 3, "total": 10, "note": None}
    app.backend.store(task_id, "PROGRESS", told)
    found = celery.read(redis_url, {}, task_id)
    assert (found["state"], found["result"]) == ("PROGRESS", told)
    celery.store(redis_url, {}, theirs, told, "HALFWAY")
    result = app.AsyncResult(theirs)
    assert (result.state, result.info, result.ready()) == ("HALFWAY", told, False)


@pytest.mark.usefixtures("clean")
def test_neither_side_overwrites_a_success_of_the_other(celery: CelerysResults, redis_url: str) -> None:
    task_id, theirs = next(ids), next(ids)
    app = ours(redis_url, {})
    store(app, task_id, 1)
    celery.store(redis_url, {}, task_id, {"current": 1}, "PROGRESS")
    celery.store(redis_url, {}, theirs, 2)
    app.backend.store(theirs, "PROGRESS", {"current": 1})
    assert [app.AsyncResult(each).state for each in (task_id, theirs)] == ["SUCCESS", "SUCCESS"]
