"""The asyncio pool: coroutines of tasks run in one event loop, all other tasks in threads beside it.

The loop has the main thread; the process's own work (the broker) has a thread of its own, so neither waits for the
other. As long as coroutines come the loop takes the jobs itself; at the first other one a runner thread does, and hands
coroutines on to the loop, until there are so many of them that the loop takes over again. It never does where beginning
a job may take long.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any

from opsq.concurrency.base import Job, Work
from opsq.concurrency.coroutines import Awaited
from opsq.concurrency.thread import Threads

logger = logging.getLogger("opsq.worker")

#: After so many coroutines in a row that runners have handed on the loop takes the jobs itself.
STREAK = 16
#: For so long the loop begins one job after another before what else is ready in it has its turn (seconds).
SLICE_S = 0.002


class LoopPlace(Awaited):
    """A coroutine in the loop as a place where it can be interrupted; before it has begun an error waits for it."""

    __slots__ = ("waited",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop, None)
        #: Whether it has waited for anything.
        self.waited = False

    def interrupt(self, _job: Job, error: type[BaseException]) -> None:
        """Raise the error at its next await (at the hard limit: cancel it)."""
        self.raise_soon(error)

    @types.coroutine
    def run(
        self, coroutine: Coroutine[Any, Any, None], task: asyncio.Task[Any], on_wait: Callable[[], None]
    ) -> Generator[Any, Any, None]:
        """Run the coroutine to its end in this asyncio task, in a context of its own."""
        self._task, in_context = task, copy_context().run
        if self._error is not None:
            task.cancel()
        try:
            waits_for = in_context(coroutine.send, None)
            self.waited = True
            on_wait()
            while True:
                try:
                    value = yield waits_for
                except BaseException as error:
                    waits_for = in_context(coroutine.throw, self._instead(error))
                else:
                    waits_for = in_context(coroutine.send, value)
        except StopIteration:
            return
        finally:
            self._task = None


class Loop(Threads):
    """Runner threads, and the loop beside them."""

    def __init__(self, size: int, work: Work) -> None:
        super().__init__(size, work)
        self._may_lead = not work.begins_slowly
        self._loop = asyncio.new_event_loop()
        #: Coroutines that have begun and are to be run in the loop; functions that are to be run in a runner.
        self._for_loop: deque[Job] = deque()
        self._for_runners: deque[Job] = deque()
        #: Whether the loop takes the jobs, else runners do; whether it is at it, or will be.
        self._leads, self._at_it = self._may_lead, False
        self._streak = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def call(self, count: int = 1) -> bool:
        """The loop begins as many as there are; runners are called when they take the jobs, or it makes no headway."""
        if self._leads and not self._at_it:
            self._wake_loop()
            return True
        return super().call(1 if self._streak else count)

    def _wake_loop(self) -> None:
        if not self._at_it:
            self._at_it = True
            self._loop.call_soon_threadsafe(self._go_on)

    # -- in the loop ------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Run what there is, in another asyncio task."""
        job = self._next()
        if job is not None:
            task = self._loop.create_task(self._run_all(job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run_all(self, job: Job | None) -> None:
        """Run this job and those after it, until one of them waits: this asyncio task is then its own."""
        task, until = asyncio.current_task(), time.monotonic() + SLICE_S
        assert task is not None
        while job is not None:
            place = job.place
            assert isinstance(place, LoopPlace)
            try:
                await place.run(self._work.run_in_loop(job), task, self._go_on)
            except asyncio.CancelledError:  # the loop ends
                raise
            except BaseException:
                logger.critical("the loop stumbled over a task and goes on", exc_info=True)
            if place.waited:
                self._work.ended()
                return
            if time.monotonic() > until or task.cancelling():
                self._go_on()
                return
            job = self._next()

    def _next(self) -> Job | None:
        """The next job for the loop, which has begun; None when there is none."""
        while True:
            if self._for_loop:
                return self._for_loop.popleft()
            job = self._work.take() if self._leads else None
            if job is None:
                if not self._at_it:
                    self._work.ended()
                    return None
                self._at_it = False  # who has more wakes the loop from now on; what came before is found
                continue
            self._at_it = True
            job.place = LoopPlace(self._loop)
            if self._work.begin(job):
                if job.is_coroutine:
                    found: Job = job
                    return found
                self._leads = False
                self._for_runners.append(job)
                super().call()

    # -- in a runner ------------------------------------------------------------------------------------------------

    def _run_next(self, place: Any) -> bool:
        try:
            job = self._for_runners.popleft()
        except IndexError:
            job = None
        if job is not None:
            place.job, job.place = job, place
            self._work.finish(job)
            return True
        job = self._work.take()
        if job is None:
            return False
        place.job, job.place = job, place
        if self._work.begin(job):
            if job.is_coroutine:
                return self._hand_on(job)
            self._streak = 0
            self._work.finish(job)
        return True

    def _hand_on(self, job: Job) -> bool:
        """Have the loop run it; false when it takes the next jobs as well."""
        job.place = LoopPlace(self._loop)
        self._for_loop.append(job)
        self._streak += 1
        if self._may_lead and self._streak >= STREAK:
            self._streak, self._leads = 0, True
        self._wake_loop()
        return not self._leads

    def _may_rest(self) -> bool:
        with self._lock:
            if self._for_runners:  # whoever puts something there calls a runner after it
                return False
            self._resting += 1
        return True

    # -- the process ------------------------------------------------------------------------------------------------

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
