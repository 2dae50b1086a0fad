"""The gevent and eventlet pools: the threads pool in a process whose threads are greenlets (`patched.py`)."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any

from opsq import signals
from opsq.concurrency import coroutines
from opsq.concurrency.here import here
from opsq.concurrency.thread import Threads
from opsq.runtime.ready import readable

#: What is waited for when an error is to be raised in a greenlet: the library's main loop calls it.
Soon = Callable[[Callable[[], None]], None]


class GreenPlace:
    """A runner greenlet as a place where jobs can be interrupted: whenever it waits."""

    def __init__(self, soon: Soon) -> None:
        from greenlet import getcurrent

        self.job: Any = None
        self._inside = False
        self._soon, self._greenlet, self._coroutines = soon, getcurrent(), here()

    def interrupt(self, job: Any, error: type[BaseException]) -> None:
        """Raise the error where the greenlet waits; in a coroutine at its next await."""

        def throw() -> None:
            if not self._inside or self.job is not job:
                return
            drive = self._coroutines.drive
            if drive is not None:
                drive.raise_soon(error)
            else:
                self._greenlet.throw(error)

        self._soon(throw)

    def enter(self) -> None:
        """The task's own code begins."""
        self._inside = True

    def leave(self) -> None:
        """It has ended."""
        self._inside = False


class LoopThread:
    """An event loop in a real thread, for coroutines of tasks: greenlets share a thread, where only one loop can run.

    The greenlets that wait for them are woken through a pipe.
    """

    def __init__(self, start_thread: Callable[[Callable[[], None], tuple[()]], object]) -> None:
        self._start_thread = start_thread
        self._begun = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: deque[threading.Lock] = deque()
        self._reader, self._writer = os.pipe()

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """Run it to its end; this greenlet waits."""
        loop, mine, context = self._started(), here(), copy_context()
        done, outcome = threading.Lock(), list[Any]()
        done.acquire()

        async def body() -> None:
            mine.drive = coroutines.Drive(awaitable)
            try:
                outcome.extend((True, await mine.drive))
            except BaseException as error:  # raised again in the greenlet
                outcome.extend((False, error))
            finally:
                mine.drive = None
                self._ended.append(done)
                os.write(self._writer, b"\0")

        def begin() -> None:
            task = loop.create_task(body(), context=context)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        loop.call_soon_threadsafe(begin)
        done.acquire()
        if not outcome[0]:
            raise outcome[1]
        return outcome[1]

    def _started(self) -> asyncio.AbstractEventLoop:
        if not self._begun:
            self._begun = True
            self._start_thread(self._serve, ())
            threading.Thread(target=self._wake, name="opsq-coroutines", daemon=True).start()
        while self._loop is None:
            time.sleep(0.001)
        return self._loop

    def _serve(self) -> None:
        """In the real thread: gevent's selectors belong to the thread in which they are made."""
        loop = asyncio.new_event_loop()
        loop.call_soon(setattr, self, "_loop", loop)
        loop.run_forever()

    def _wake(self) -> None:
        """In a greenlet: wake those whose coroutines have ended."""
        while True:
            readable([self._reader], None)
            os.read(self._reader, 4096)
            while self._ended:
                self._ended.popleft().release()


class EventletThreads(Threads):
    """Runner greenlets of eventlet, of which Celery's signals tell."""

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same, after `eventlet_pool_apply`."""
        wrapped = super().wrap(function)

        def told(*args: Any, **kwargs: Any) -> Any:
            if signals.eventlet_pool_apply.receivers:
                signals.eventlet_pool_apply.send(self, target=function, args=args, kwargs=kwargs)
            return wrapped(*args, **kwargs)

        return told

    def serve(self, work: Callable[[], None]) -> None:
        """The same, between `eventlet_pool_started` and `eventlet_pool_postshutdown`."""
        signals.eventlet_pool_started.send(self)
        super().serve(work)
        signals.eventlet_pool_postshutdown.send(self)

    def end(self) -> None:
        """The same, after `eventlet_pool_preshutdown`."""
        signals.eventlet_pool_preshutdown.send(self)
        super().end()


def real_lock(library: str) -> Any:
    """A lock that was not patched: for greenlets that never wait while they hold it."""
    if library == "gevent":
        from gevent import monkey

        return monkey.get_original("_thread", "allocate_lock")()
    from eventlet import patcher

    return patcher.original("_thread").allocate_lock()


def places(library: str) -> Callable[[], GreenPlace]:
    """What makes the place of the greenlet that calls it; coroutines have a thread of their own from now on."""
    soon: Soon
    if library == "gevent":
        import gevent
        from gevent import monkey

        hub = gevent.get_hub()
        start_thread = monkey.get_original("_thread", "start_new_thread")

        def soon(call: Callable[[], None]) -> None:
            hub.loop.run_callback(call)
    else:
        from eventlet import hubs, patcher

        start_thread = patcher.original("_thread").start_new_thread

        def soon(call: Callable[[], None]) -> None:
            hubs.get_hub().schedule_call_global(0, call)

    coroutines.run_awaitable = LoopThread(start_thread).run
    return lambda: GreenPlace(soon)
