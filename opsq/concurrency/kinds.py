"""Which executor runs the tasks of which pool; only that one is loaded."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from opsq.concurrency.base import Executor, Pool, Work

if TYPE_CHECKING:
    from opsq.concurrency.thread import Threads


def make_lock(pool: Pool) -> AbstractContextManager[Any]:
    """A lock for what runners do to the books: short, and without waiting for anything.

    Greenlets switch only where they wait; a real lock costs them a tenth of a patched one.
    """
    if not pool.library:
        return threading.Lock()
    from opsq.concurrency import green

    lock: AbstractContextManager[Any] = green.real_lock(pool.library)
    return lock


def load(pool: Pool) -> None:
    """Load the pool's code: before the fork, so that its children need not."""
    if pool.many and not pool.library:
        _executor(pool)


def _executor(pool: Pool) -> type[Threads]:
    if pool.name == "asyncio":
        from opsq.concurrency.aio import Loop

        return Loop
    if pool.library == "eventlet":
        from opsq.concurrency.green import EventletThreads

        return EventletThreads
    from opsq.concurrency.thread import Threads

    return Threads


def make_executor(pool: Pool, size: int, work: Work) -> Executor:
    """The executor of a pool that runs many tasks in this process, at most `size` at once."""
    made = _executor(pool)(size, work)
    if pool.library:
        from opsq.concurrency import green

        made.make_place = green.places(pool.library)
    return made
