"""What is known of a call, as Django's task interface says it."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from opsq import states
from opsq.contrib.django import tasks_calls
from opsq.contrib.django.tasks_calls import Attempt, Call
from opsq.contrib.django.tasks_interface import (
    TaskError,
    TaskException,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    tasks_of,
)
from opsq.utils.time import parse_iso

#: What stands for a stored error whose class wants other arguments than it keeps.
_STAND_IN = re.compile(r"<class '([\w.<>]+)'>\(")


def find(app: Any, task_id: str) -> Any:
    """The TaskResult of a call. Raises TaskResultDoesNotExist; OpsqError when that cannot be known now."""
    meta = app.backend.get_meta(task_id)
    call, attempts = tasks_calls.read(app, task_id)
    if call is None:
        call = _call_in(meta)
    task = None if call is None else defined(app, call.task)
    if call is None or task is None:
        raise TaskResultDoesNotExist(task_id)
    return result_of(call, as_called(task, call), task_id, attempts, meta)


def _call_in(meta: Mapping[str, Any]) -> Call | None:
    """The call as its result tells it (`result_extended`), for one that is kept longer than what was noted."""
    if meta["status"] == states.PENDING or not meta.get("name"):
        return None
    args, kwargs, queue = meta.get("args"), meta.get("kwargs"), meta.get("queue")
    args = args if isinstance(args, list | tuple) else []
    return Call(meta["name"], args, kwargs if isinstance(kwargs, dict) else {}, "default", queue or "", 0, None, None)


def defined(app: Any, path: str) -> Any:
    """The Task of this path, if one of the project's task modules defines it. Only those are imported."""
    found = _imported(path)
    if found is None:
        app.import_tasks()
        found = _imported(path)
    return found


def _imported(path: str) -> Any:
    return tasks_of(sys.modules.get(path.rpartition(".")[0])).get(path)


def as_called(task: Any, call: Call) -> Any:
    """The Task with the queue, priority, backend and time of the call; as it is, if those are not allowed now."""
    run_after = None if call.run_after is None else moment(call.run_after)
    said = (call.queue_name, call.priority, call.backend, run_after)
    if said == (task.queue_name, task.priority, task.backend, task.run_after):
        return task
    changes = dict(zip(("queue_name", "priority", "backend", "run_after"), said, strict=True))
    try:
        return replace(task, **changes)
    except (TaskException, ImproperlyConfigured):
        return task


def result_of(call: Call, task: Any, task_id: str, attempts: Sequence[Attempt], meta: Mapping[str, Any]) -> Any:
    """The TaskResult of a call; `meta`: its stored record."""
    state = meta["status"]
    ended = state in states.READY_STATES
    begun = [attempt.at for attempt in attempts]
    result = TaskResult(
        task=task,
        id=task_id,
        status=_status(state, bool(attempts)),
        enqueued_at=_moment(call.enqueued_at),
        started_at=_moment(begun[0] if begun else None),
        last_attempted_at=_moment(begun[-1] if begun else None),
        finished_at=_finished(meta, begun) if ended else None,
        args=list(call.args),
        kwargs=dict(call.kwargs),
        backend=task.backend,
        errors=[error_of(meta["result"], meta.get("traceback"))] if ended and state != states.SUCCESS else [],
        worker_ids=[attempt.worker for attempt in attempts],
    )
    if state == states.SUCCESS:
        become(result, _return_value=meta["result"])
    return result


def become(result: Any, **values: Any) -> None:
    """Change a TaskResult, which is frozen for its readers."""
    for name, value in values.items():
        object.__setattr__(result, name, value)


def error_of(error: Any, traceback: str | None) -> Any:
    """A TaskError; one without a traceback (the worker was lost, the call revoked) says at least what it is."""
    path = _class_path(error)
    return TaskError(exception_class_path=path, traceback=traceback or f"{path}: {error}\n")


def _class_path(error: Any) -> str:
    kind = type(error)
    stand_in = _STAND_IN.match(str(error)) if kind is Exception else None
    return f"{kind.__module__}.{kind.__qualname__}" if stand_in is None else stand_in[1]


def _status(state: str, begun: bool) -> Any:
    if state == states.SUCCESS:
        return TaskResultStatus.SUCCESSFUL
    if state in states.READY_STATES:
        return TaskResultStatus.FAILED
    waits = state in (states.RETRY, states.REJECTED) or (state == states.PENDING and not begun)
    return TaskResultStatus.READY if waits else TaskResultStatus.RUNNING


def _finished(meta: Mapping[str, Any], begun: Sequence[float]) -> datetime | None:
    """When it ended: never before it began, as the clock of records is coarser."""
    done = meta.get("date_done")
    if done is None:
        return None
    ended = parse_iso(done) if isinstance(done, str) else timezone.make_aware(done) if timezone.is_naive(done) else done
    return moment(max([ended.timestamp(), *begun]))


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)


def moment(seconds: float) -> datetime:
    """A time (Unix seconds) as this project has times: aware, or naive in its zone."""
    aware = datetime.fromtimestamp(seconds, UTC)
    return aware if settings.USE_TZ else timezone.make_naive(aware, timezone.get_default_timezone())


def seconds_of(value: datetime) -> float:
    """Unix seconds of a time as this project has them."""
    return (
        timezone.make_aware(value, timezone.get_default_timezone()) if timezone.is_naive(value) else value
    ).timestamp()
