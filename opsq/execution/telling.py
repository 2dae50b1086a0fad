"""Who is told of a run's end: signals, the task's own handlers, its request. None of them changes the outcome."""

from __future__ import annotations

from traceback import format_exception_only
from typing import Any

from opsq import signals, states
from opsq.execution.context import Context
from opsq.execution.outcome import ExceptionInfo, Outcome
from opsq.execution.plan import Plan
from opsq.execution.request import tell as tell_request

#: States after which `after_return` is not told: the task has not returned.
_AGAIN_OR_NEVER = frozenset((states.RETRY, states.IGNORED, states.REJECTED))


def ended(plan: Plan, request: Context, outcome: Outcome, args: Any, kwargs: Any) -> None:
    """A run has ended here."""
    _tell(plan, request, outcome, args, kwargs)
    if signals.task_postrun.receivers:
        told = {"task": plan.task, "args": args, "kwargs": kwargs, "retval": outcome.value, "state": outcome.state}
        signals.task_postrun.send(plan.task, task_id=request.id, **told)


def failed(plan: Plan, request: Context, error: BaseException, args: Any, kwargs: Any) -> None:
    """A run was ended from outside, by this error: it was killed, or its process was lost."""
    _tell(plan, request, Outcome(states.FAILURE, error), args, kwargs)


def revoked(plan: Plan | None, request: Context, expired: bool, signum: int | None = None) -> None:
    """A task is not run because it was revoked or has expired; with a signal, it was killed by it."""
    if signals.task_revoked.receivers:
        told = {"terminated": signum is not None, "signum": signum, "expired": expired}
        signals.task_revoked.send(plan.task if plan is not None else None, request=request, **told)


def _tell(plan: Plan, request: Context, outcome: Outcome, args: Any, kwargs: Any) -> None:
    task, state, value = plan.task, outcome.state, outcome.value
    info = None
    if state != states.SUCCESS and isinstance(value, BaseException):
        info = ExceptionInfo(value, outcome.traceback or "".join(format_exception_only(value)))
    if not plan.quiet:
        _tell_handlers(plan, request, outcome, args, kwargs, info)
    if state == states.SUCCESS and signals.task_success.receivers:
        signals.task_success.send(task, result=value, runtime=outcome.runtime_s)
    elif state == states.FAILURE and signals.task_failure.receivers:
        told = {"args": args, "kwargs": kwargs, "traceback": info.tb if info else None, "einfo": info}
        signals.task_failure.send(task, task_id=request.id, exception=value, **told)
    elif state == states.RETRY and signals.task_retry.receivers:
        signals.task_retry.send(task, request=request, reason=value, einfo=info)


def _tell_handlers(plan: Plan, request: Context, outcome: Outcome, args: Any, kwargs: Any, info: Any) -> None:
    """The task's own handlers; what they raise is logged, as `signals` does."""
    task, state, value = plan.task, outcome.state, outcome.value
    try:
        if state == states.SUCCESS and "on_success" in plan.handlers:
            task.on_success(value, request.id, args, kwargs)
        elif state == states.FAILURE and "on_failure" in plan.handlers:
            task.on_failure(value, request.id, args, kwargs, info)
        elif state == states.RETRY and "on_retry" in plan.handlers:
            task.on_retry(value.exc, request.id, args, kwargs, info)
        if "after_return" in plan.handlers and state not in _AGAIN_OR_NEVER:
            task.after_return(state, value, request.id, args, kwargs, info)
        if plan.request_class is not None:
            tell_request(plan.request_class, request, outcome, info)
    except Exception:
        signals.logger.exception("a handler of the task %s failed", plan.name)
