"""Whether a result may be waited for here: not inside a task that a worker runs, unless it is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from opsq import _state

_MAY_WAIT = ContextVar("opsq_may_wait_in_tasks", default=False)


def assert_will_not_block() -> None:
    """Raise RuntimeError inside a task that a worker runs: tasks that wait for tasks can lock a worker up."""
    request = _state.current_request()
    if request is not None and not request.called_directly and not request.is_eager and not _MAY_WAIT.get():
        raise RuntimeError(
            "Never call result.get() within a task! It can wait for a worker that it occupies itself; "
            "use callbacks, or get(disable_sync_subtasks=False) if you are sure."
        )


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Let `get()` wait inside a task."""
    token = _MAY_WAIT.set(True)
    try:
        yield
    finally:
        _MAY_WAIT.reset(token)


@contextmanager
def denied_join_result() -> Iterator[None]:
    """Forbid `get()` inside a task again."""
    token = _MAY_WAIT.set(False)
    try:
        yield
    finally:
        _MAY_WAIT.reset(token)
