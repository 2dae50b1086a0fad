"""Work that blocks, done beside an event loop: in threads of its own, so that nothing else of the program waits."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

P = ParamSpec("P")
R = TypeVar("R")

#: So many calls block at the same time at most (a broker that does not answer); others wait for their turn, in order.
THREADS = 32


def submit(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
    """Have it done beside, in the context of whoever asks, without waiting for it."""
    return _pool().submit(copy_context().run, functools.partial(work, *args, **kwargs))


async def aside(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Have it done beside, and await what it returns. A cancelled caller does not stop what has begun."""
    import asyncio  # programs without an event loop do not pay for it

    return await asyncio.wrap_future(submit(work, *args, **kwargs))


@functools.cache
def _pool() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(THREADS, "opsq-aside")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # the threads are the parent's
