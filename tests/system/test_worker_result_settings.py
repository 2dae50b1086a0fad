"""Settings of results, followed by a real worker and read by a caller with the same settings."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from support import lab as labs
from support.lab import Lab

from opsq import App

TASKS = """
class Odd(Exception):
    def __init__(self, code, *, where="here"):
        super().__init__(code)
        self.where = where


@app.task
def a_set(*items):
    return {"items": set(items), "text": "x" * 5000}


@app.task
def fail():
    raise LookupError("gone", 404)


@app.task
def table(rows):
    return [{"row": row, "share": row / 4} for row in range(rows)]


app.conf.update(SETTINGS)
"""


def tasks(settings: dict[str, Any]) -> str:
    return TASKS.replace("SETTINGS", repr(settings))


def caller(lab: Lab, settings: dict[str, Any]) -> App:
    return App("caller", broker=lab.url, backend=lab.url, set_as_current=False, **settings)


def test_pickled_compressed_results_that_tell_the_call(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = {
        "result_serializer": "pickle",
        "result_accept_content": ["pickle"],
        "result_compression": "gzip",
        "result_extended": True,
        "result_expires": 600,
        "result_failure_expires": 60,
    }
    with labs.opened(tmp_path_factory, tasks(settings)) as lab:
        lab.worker("-c", "1", "-n", "w@here")
        app = caller(lab, settings)
        result = app.send_task("proj.a_set", (1, "b"))
        assert result.get(timeout=10) == {"items": {1, "b"}, "text": "x" * 5000}
        raw: Any = lab.redis.get(f"celery-task-meta-{result.id}")
        assert raw.startswith(b"\0celery-compressed\0application/x-gzip\0")
        assert len(raw) < 1000
        assert 500 < int(lab.redis.ttl(f"celery-task-meta-{result.id}")) <= 600  # type: ignore[arg-type]
        called = (result.name, list(result.args), result.kwargs, result.worker, result.retries, result.queue)
        assert called == ("proj.a_set", [1, "b"], {}, "w@here", 0, "celery")
        failed = app.send_task("proj.fail")
        with pytest.raises(LookupError) as caught:
            failed.get(timeout=10)
        assert caught.value.args == ("gone", 404)
        assert "in fail" in str(caught.value.__cause__)
        assert "raise LookupError" in (failed.traceback or "")
        small: Any = lab.redis.get(f"celery-task-meta-{failed.id}")
        assert isinstance(pickle.loads(small)["result"], LookupError)
        assert 0 < int(lab.redis.ttl(f"celery-task-meta-{failed.id}")) <= 60  # type: ignore[arg-type]


@pytest.mark.parametrize("serializer", ["yaml", "msgpack"])
def test_results_of_other_serializers_that_never_expire(
    serializer: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = {"result_serializer": serializer, "result_accept_content": [serializer], "result_expires": None}
    with labs.opened(tmp_path_factory, tasks(settings)) as lab:
        lab.worker("-c", "1")
        app = caller(lab, settings)
        result = app.send_task("proj.table", (3,))
        assert result.get(timeout=10) == [{"row": row, "share": row / 4} for row in range(3)]
        failed = app.send_task("proj.fail")
        assert failed.get(timeout=10, propagate=False).args == ("gone", 404)
        for each in (result, failed):
            assert int(lab.redis.ttl(f"celery-task-meta-{each.id}")) == -1  # type: ignore[arg-type]
            each.forget()
