"""What Django keeps in a thread, around the tasks that run there: as it does itself around requests.

Connections to databases go by Django's own rules (CONN_MAX_AGE, CONN_HEALTH_CHECKS, closed after an error), and none is
ever used by two processes. What a task has set for its thread (language, time zone) ends with it.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from asgiref.sync import sync_to_async
from django.core.cache import caches, close_caches
from django.db import Error, connections, reset_queries
from django.db.backends.signals import connection_created
from django.utils import timezone, translation

from opsq.exceptions import OpsqError

#: Connections that a parent has opened: kept for ever, since their destructors may speak on the parent's socket.
_inherited: list[Any] = []


class _Databases:
    """Whether this process has opened a connection: only then is the thread of asynchronous code visited."""

    used = False


def around(call: Callable[..., Any]) -> Callable[..., Any]:
    """A task's function with Django's state put in order before and after it."""

    @functools.wraps(call)
    def run(*args: Any, **kwargs: Any) -> Any:
        _begin()
        try:
            return call(*args, **kwargs)
        finally:
            _end()
            _forget_settings()

    return run


def around_coroutine(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same for an `async def` task, whose connections live in the thread that Django has for such code.

    Where threads are greenlets there is no such thread: what waits for it would wait for ever.
    """
    if _threads_are_greenlets():
        return _refused
    begin, end = sync_to_async(_begin, thread_sensitive=True), sync_to_async(_end, thread_sensitive=True)

    @functools.wraps(call)
    async def run(*args: Any, **kwargs: Any) -> Any:
        if _Databases.used:
            await begin()
        try:
            return await call(*args, **kwargs)
        finally:
            _forget_settings()
            if _Databases.used:
                await end()

    return run


def _threads_are_greenlets() -> bool:
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    return bool(
        (gevent is not None and gevent.is_module_patched("threading"))
        or (eventlet is not None and eventlet.is_monkey_patched("thread"))
    )


async def _refused(*_args: Any, **_kwargs: Any) -> None:
    raise OpsqError(
        "an async def task of a Django project cannot run in a gevent or eventlet pool",
        why="Django asks its database for such code in a thread, and threads are greenlets there",
        hint="run it in a worker with -P asyncio, -P threads or prefork",
    )


def _begin() -> None:
    reset_queries()
    _close_old()


def _end() -> None:
    _close_old()
    close_caches()


def _forget_settings() -> None:
    translation.deactivate()
    timezone.deactivate()


def _close_old() -> None:
    """Close what Django would close between two requests; also what a task left in a transaction, as it was killed."""
    for connection in connections.all(initialized_only=True):
        with suppress(Error):
            if connection.in_atomic_block:
                del connections[connection.alias]
                connection.close()
            else:
                connection.close_if_unusable_or_obsolete()


def let_go() -> None:
    """Close what the import of the tasks has opened: this process only looks after others."""
    for connection in connections.all(initialized_only=True):
        with suppress(Error):
            connection.close()
            if hasattr(connection, "close_pool"):
                connection.close_pool()
    close_caches()


@functools.cache
def watch_forks() -> None:
    """From now on a forked process starts without the connections of its parent."""
    os.register_at_fork(after_in_child=_forget_inherited)
    connection_created.connect(_note_use, weak=False)


def _note_use(**_told: Any) -> None:
    _Databases.used = True


def _forget_inherited() -> None:
    for connection in connections.all(initialized_only=True):
        pools = getattr(connection, "_connection_pools", {})
        _inherited.extend((connection, dict(pools)))
        pools.clear()
        del connections[connection.alias]
    _inherited.extend(caches.all(initialized_only=True))
    for alias in caches:
        with suppress(AttributeError):
            del caches[alias]
