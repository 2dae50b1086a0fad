"""The real Celery's AsyncResult and backend in a process of their own, with settings that the test says.

Run by the interpreter of the Celery environment, this file is the answering side.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the answering side
from support.peer import Peer, serve


class CelerysResults(Peer):
    """The asking side."""

    def __init__(self, python: Path) -> None:
        super().__init__([python, __file__])

    def store(self, url: str, settings: Mapping[str, Any], task_id: str, value: Any, state: str = "SUCCESS") -> None:
        """Have Celery store a state; an exception for FAILURE."""
        self.ask("store", url, dict(settings), task_id, value, state)

    def read(self, url: str, settings: Mapping[str, Any], task_id: str) -> dict[str, Any]:
        """What Celery's AsyncResult says of a task: state, result (of an error class and arguments), and the rest."""
        answer: dict[str, Any] = self.ask("read", url, dict(settings), task_id)
        return answer


def _app(url: str, settings: Mapping[str, Any]) -> Any:
    from celery import Celery

    return Celery("theirs", broker=url, backend=url, changes=dict(settings))


def _store(url: str, settings: Mapping[str, Any], task_id: str, value: Any, state: str) -> None:
    from celery.app.task import Context

    request = Context(
        id=task_id,
        task="proj.add",
        args=[2, 3],
        kwargs={"a": 1},
        hostname="celery@theirs",
        retries=2,
        delivery_info={"routing_key": "mail"},
        children=[],
    )
    traceback = "Traceback: theirs\n" if isinstance(value, BaseException) else None
    _app(url, settings).backend.store_result(task_id, value, state, traceback, request=request)


def _read(url: str, settings: Mapping[str, Any], task_id: str) -> dict[str, Any]:
    result = _app(url, settings).AsyncResult(task_id)
    value = result.result
    if isinstance(value, BaseException):
        value = (type(value).__module__, type(value).__qualname__, value.args)
    names = ("state", "traceback", "name", "args", "kwargs", "worker", "retries", "queue")
    return {"result": value, **{name: getattr(result, name) for name in names}}


if __name__ == "__main__":
    serve({"store": _store, "read": _read})
