"""What the runner needs to know of a task, looked up once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opsq.concurrency.here import is_coroutine
from opsq.execution.request import own_class

#: A task's function and whether it is `async def` -> what is called in its place.
Around = Callable[[Callable[..., Any], bool], Callable[..., Any]]

#: A handler of this module does nothing and is not called.
_DEFAULT_HANDLERS = "opsq.app.task"


class Plan:
    """What the runner needs to know of a task, looked up once."""

    __slots__ = (
        *("acks_failures", "acks_late", "acks_timeouts", "call", "coroutine", "handlers", "ignore_result", "limited"),
        "name",
        *(
            "quiet",
            "request_class",
            "send_events",
            "soft_time_limit",
            "store_errors",
            "task",
            "throws",
            "time_limit",
            "track_started",
        ),
    )

    def __init__(self, task: Any, around: Around | None = None) -> None:
        self.task, self.name = task, task.name
        custom = type(task).__call__.__module__ != _DEFAULT_HANDLERS
        self.call: Callable[..., Any] = task if custom else task.run
        if around is not None:
            self.call = around(self.call, is_coroutine(task.run))
        #: What makes the coroutine of an `async def` task, for who has a loop; `call` runs it to its end.
        self.coroutine: Callable[..., Any] | None = None
        if is_coroutine(task.run):
            from opsq.concurrency.coroutines import to_end

            self.coroutine, self.call = self.call, to_end(self.call)
        self.ignore_result = bool(task.ignore_result)
        self.store_errors = bool(task.store_errors_even_if_ignored)
        self.acks_late = bool(task.acks_late)
        self.acks_failures = not self.acks_late or task.acks_on_failure is not False
        self.acks_timeouts = not self.acks_late or task.acks_on_timeout is not False
        self.throws = tuple(task.throws or ())
        self.track_started = bool(task.track_started)
        self.send_events = bool(task.send_events)
        self.time_limit: float | None = task.time_limit
        self.soft_time_limit: float | None = task.soft_time_limit
        self.limited = bool(self.time_limit or self.soft_time_limit)
        names = ("before_start", "on_success", "on_failure", "on_retry", "after_return")
        self.handlers = {name for name in names if getattr(type(task), name).__module__ != _DEFAULT_HANDLERS}
        #: Who is told of the outcome besides, if the task says so.
        self.request_class = own_class(task)
        #: True when nothing is to be done around a run that goes well.
        self.quiet = not self.handlers and self.request_class is None

    def ignores(self, said: bool | None) -> bool:
        """Whether nobody wants the result of a call; `said`: what its message says, None = as the task has it."""
        return self.ignore_result if said is None else said
