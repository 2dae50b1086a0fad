"""Request: one message of a task as its worker sees it; a task class may have one of its own."""

from __future__ import annotations

import importlib
from typing import Any

from opsq import states
from opsq.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from opsq.execution.context import Context
from opsq.execution.outcome import ExceptionInfo, Outcome


class Request:
    """Told of what becomes of a message, after its task's handlers; its attributes are those of `task.request`.

    Of a task that was killed or lost it is told in a process of its own, as handlers are.
    """

    def __init__(self, context: Context) -> None:
        self.context, self.task = context, context.task_object
        self.id = self.task_id = context.id
        self.name = self.task_name = context.task

    def __getattr__(self, name: str) -> Any:
        """What it does not have itself, `task.request` has."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.context, name)

    def on_success(self, failed__retval__runtime: tuple[bool, Any, float], **kwargs: Any) -> None:
        """The task succeeded: (False, its value, seconds)."""

    def on_retry(self, exc_info: ExceptionInfo) -> None:
        """It is to be retried."""

    def on_failure(self, exc_info: ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """It failed, for whatever reason."""

    def on_timeout(self, soft: bool, timeout: float | None) -> None:
        """It has ended by its soft or its hard time limit (seconds), and then failed."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.task_name}[{self.id}]>"


def own_class(task: Any) -> type[Request] | None:
    """The class that a task says, itself or as `module:Class`; None where it says nothing of its own."""
    wanted = getattr(task, "Request", Request)
    if isinstance(wanted, str):
        module, _, name = wanted.replace(":", ".").rpartition(".")
        wanted = getattr(importlib.import_module(module), name)
    found: type[Request] | None = None if wanted is Request else wanted
    return found


def tell(kind: type[Request], context: Context, outcome: Outcome, info: ExceptionInfo | None) -> None:
    """Tell a request of its outcome."""
    request = kind(context)
    if outcome.state == states.SUCCESS:
        request.on_success((False, outcome.value, outcome.runtime_s))
    elif info is not None and outcome.state == states.RETRY:
        request.on_retry(info)
    elif info is not None and outcome.state == states.FAILURE:
        error = outcome.value
        if isinstance(error, TimeLimitExceeded):
            request.on_timeout(False, error.args[0] if error.args else None)
        elif isinstance(error, SoftTimeLimitExceeded):
            request.on_timeout(True, context.soft_time_limit or context.task_object.soft_time_limit)
        request.on_failure(info)
