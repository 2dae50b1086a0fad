"""Whether a result may be waited for here (not inside a task that a worker runs, unless it is said); how loops wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from opsq import _state, states
from opsq.exceptions import TimeoutError
from opsq.runtime.aside import aside

#: Between the first two looks for a result that is awaited (seconds).
FIRST_LOOK_S = 0.01
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


async def ended(
    backend: Any, task_id: str, timeout_s: float | None, check: Callable[[], None] | None, interval_s: float
) -> dict[str, Any]:
    """What is known of a task once it has ended; `check` is called at intervals. Raises TimeoutError.

    A place for results that announces nothing to event loops is asked: at once, and then more and more seldom.
    """
    ask = beside(backend)

    async def checked() -> None:
        if check is not None:
            await ask(check)

    if hasattr(backend, "await_one"):
        found: dict[str, Any] = await backend.await_one(task_id, timeout_s, checked, interval_s)
        return found
    import asyncio  # programs without an event loop do not pay for it

    until = None if timeout_s is None else time.monotonic() + timeout_s
    pause_s = FIRST_LOOK_S
    while (meta := await ask(backend.get_meta, task_id))["status"] not in states.READY_STATES:
        left = pause_s if until is None else min(pause_s, until - time.monotonic())
        if left <= 0:
            raise TimeoutError(f"the result of {task_id} did not come in time")
        await asyncio.sleep(left)
        pause_s = min(pause_s * 2, interval_s)
        await checked()
    return dict(meta)


def beside(backend: Any) -> Callable[..., Any]:
    """How an event loop has a place for results asked: as that place says itself, else in threads of ours."""
    return getattr(backend, "beside", aside)
