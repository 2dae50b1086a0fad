"""Which executor runs the tasks of which pool."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from opsq.concurrency import green
from opsq.concurrency.aio import Loop
from opsq.concurrency.base import Executor, Job, Pool
from opsq.concurrency.thread import Threads


def make_lock(pool: Pool) -> AbstractContextManager[Any]:
    """A lock for what runners do to the books: short, and without waiting for anything.

    Greenlets switch only where they wait; a real lock costs them a tenth of a patched one.
    """
    return green.real_lock(pool.library) if pool.library else threading.Lock()


def make_executor(
    pool: Pool, size: int, take: Callable[[], Job | None], run: Callable[[Any], None], on_idle: Callable[[], None]
) -> Executor:
    """The executor of a pool that runs many tasks in this process, at most `size` at once."""
    if pool.name == "asyncio":
        return Loop(size, take, run, on_idle)
    threads = (green.EventletThreads if pool.library == "eventlet" else Threads)(size, take, run, on_idle)
    if pool.library:
        threads.make_place = green.places(pool.library)
    return threads
