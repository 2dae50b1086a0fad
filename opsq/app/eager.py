"""Tasks that run in the caller's own process: `apply`, and every call under `task_always_eager`."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from opsq import _state, signals, states
from opsq.app.following import EagerFollowing
from opsq.app.preparing import ignores_result
from opsq.exceptions import Ignore, Reject, Retry
from opsq.execution.context import Context
from opsq.execution.outcome import Outcome
from opsq.execution.plan import Plan
from opsq.execution.runner import Runner, traceback_text
from opsq.protocol import codec
from opsq.result.eager import EagerResult


class EagerRunner(Runner):
    """Runs a task of this process's own: there is no message, and a retry runs at once."""

    #: Whether errors and retries are the caller's, who asked for them: nobody else is told of them then.
    throws = False

    def call(self, request: Context, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Outcome:
        """One run of the task that the request is of."""
        task, token = request.task_object, _state.push_request(request)
        try:
            return self._call(Plan(task), request, args, kwargs, bool(request.callbacks))
        except BaseException:
            told = {"task_id": request.id, "task": task, "args": args, "kwargs": kwargs}
            signals.task_postrun.send(task, **told, retval=None, state=None)
            raise
        finally:
            _state.pop_request(token)

    def _judge(self, plan: Plan, request: Context, error: BaseException) -> Outcome:
        if self.throws and not isinstance(error, Ignore | Reject):
            raise error
        return super()._judge(plan, request, error)

    def _retry(self, _plan: Plan, _request: Context, retry: Retry) -> Outcome:
        return Outcome(states.RETRY, retry, traceback_text(retry))

    def _reject(self, _plan: Plan, _request: Context, reject: Reject) -> Outcome:
        return Outcome(states.REJECTED, reject)


def apply(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> EagerResult:
    """Run a task here until it has ended; each retry is a run at once.

    With `throw` an error is raised here, and a retry too, as tests of tasks expect it.
    """
    app = task.app
    task = app.tasks[task.name]
    request = _request(task, args, kwargs, options)
    runner = EagerRunner(app.tasks, frozenset(), request.hostname, None, EagerFollowing(app))
    runner.throws = app.conf.task_eager_propagates if options.get("throw") is None else options["throw"]
    outcome = runner.call(request, args, kwargs)
    value = outcome.value
    if outcome.state == states.RETRY:
        call = value.call
        again = {**options, "retries": request.retries + 1, "task_id": request.id}
        return apply(task, call.get("args") or args, call.get("kwargs") or kwargs, again)
    if task.store_eager_result and not request.ignore_result:
        app.backend.store(request.id, outcome.state, value, outcome.traceback, request=request)
    return EagerResult(request.id, value, outcome.state, traceback=outcome.traceback, name=task.name)


def apply_as_sent(task: Any, args: Any, kwargs: Any, task_id: str | None, options: Mapping[str, Any]) -> EagerResult:
    """What a call does under `task_always_eager`: the arguments go through the serializer as if they were sent."""
    serializer = options.get("serializer") or task.serializer
    content_type, encoding, data = codec.encode((list(args or ()), dict(kwargs or {})), serializer)
    args, kwargs = codec.decode(data, content_type, encoding, frozenset({content_type}))
    result: EagerResult = task.apply(args, kwargs, **{**options, "task_id": task_id})
    return result


def _request(task: Any, args: Any, kwargs: Any, options: Mapping[str, Any]) -> Context:
    """What the task is told about this run."""
    parent = _state.current_request()
    task_id = options.get("task_id") or str(uuid.uuid4())
    inside = parent is not None and parent.id is not None
    return Context(
        task_object=task,
        task=task.name,
        id=task_id,
        args=args,
        kwargs=kwargs,
        called_directly=False,
        is_eager=True,
        retries=options.get("retries") or 0,
        root_id=(parent.root_id or parent.id) if inside else task_id,
        parent_id=parent.id if inside else None,
        hostname=socket.gethostname(),
        headers=options.get("headers"),
        ignore_result=ignores_result(task, options),
        callbacks=_as_list(options.get("link")),
        errbacks=_as_list(options.get("link_error")),
        timelimit=[task.time_limit, task.soft_time_limit] if task.time_limit or task.soft_time_limit else None,
        delivery_info={
            "is_eager": True,
            **{name: options.get(name) for name in ("exchange", "routing_key", "priority")},
        },
    )


def _as_list(value: Any) -> list[Any] | None:
    return value if value is None or isinstance(value, list) else [value]
