"""The asyncio pool: coroutines of tasks run in one event loop, all other tasks in threads beside it.

The loop has the main thread; the process's own work (the broker) has a thread of its own, so neither waits for the
other. Jobs are taken by the runner threads, in their order; those of coroutines are handed on to the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from opsq.concurrency.base import Job
from opsq.concurrency.coroutines import Drive
from opsq.concurrency.thread import Threads


class LoopPlace:
    """A coroutine in the loop as a place where it can be interrupted; before it has begun an error waits for it."""

    def __init__(self) -> None:
        self._drive: Drive | None = None
        self._early: type[BaseException] | None = None
        self._ended = False

    def interrupt(self, _job: Job, error: type[BaseException]) -> None:
        """Raise the error at its next await (at the hard limit: cancel it)."""
        self._early = error
        if self._drive is not None and not self._ended:
            self._drive.interrupt(error)

    async def drive(self, job: Job, make: Callable[[], Awaitable[Any]]) -> Any:
        """The value of the coroutine, unless it was ended by its hard limit."""
        self._drive = Drive(make())
        if self._early is not None:
            self._drive.interrupt(self._early)
        try:
            value = await self._drive
        except BaseException:
            if job.verdict is not None:
                raise job.verdict from None
            raise
        finally:
            self._ended = True
        if job.verdict is not None:
            raise job.verdict
        return value


class Loop(Threads):
    """Runner threads, and the loop to which they hand coroutines."""

    coroutine_place = LoopPlace

    def __init__(
        self, size: int, take: Callable[[], Job | None], run: Callable[[Any], None], on_idle: Callable[[], None]
    ) -> None:
        super().__init__(size, take, run, on_idle)
        self._loop = asyncio.new_event_loop()
        self._inbox: deque[Coroutine[Any, Any, None]] = deque()
        self._called = False
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the loop; from any thread."""
        self._inbox.append(coroutine)
        if not self._called:
            self._called = True
            self._loop.call_soon_threadsafe(self._admit)

    def _admit(self) -> None:
        self._called = False
        while self._inbox:
            task = self._loop.create_task(self._inbox.popleft())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def serve(self, work: Callable[[], None]) -> None:
        """The loop in this thread, the work of the process in another one; both end with the work."""
        ended: list[BaseException] = []

        def body() -> None:
            try:
                work()
            except BaseException as error:  # raised again in the main thread
                ended.append(error)
            finally:
                self._loop.call_soon_threadsafe(self._loop.stop)

        thread = threading.Thread(target=body, name="opsq-line", daemon=True)
        asyncio.set_event_loop(self._loop)
        thread.start()
        self._loop.run_forever()
        thread.join()
        self._close()
        if ended:
            raise ended[0]

    def _close(self) -> None:
        """What tasks have left behind in the loop is cancelled."""
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
