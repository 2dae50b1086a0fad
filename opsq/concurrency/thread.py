"""Runner threads: one takes all jobs at full speed as long as they are short; others join it when they are not.

So a short task never pays for being handed over, and a thousand long ones are all running after ten rounds of doubling.
In a process that was patched by gevent or eventlet these threads are greenlets.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from opsq.concurrency.base import Job, Work
from opsq.concurrency.here import here

logger = logging.getLogger("opsq.worker")

_raise_in_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc


class _TakenBack(BaseException):
    """In place of an error that is not to be raised any more."""


class ThreadPlace:
    """A runner thread as a place where jobs can be interrupted: in Python code, not inside a call of C code."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self._inside = self._raising = self._raised = False
        self._thread = threading.get_ident()
        self._coroutines = here()

    def interrupt(self, job: Job, error: type[BaseException]) -> None:
        """Raise the error in its thread; in a coroutine at its next await."""
        self._raising = True
        try:
            if self._inside and self.job is job:
                drive = self._coroutines.drive
                if drive is not None:
                    drive.raise_soon(error)
                else:
                    self._raised = True
                    self._raise(error)
        finally:
            self._raising = False

    def enter(self) -> None:
        """The task's own code begins."""
        self._inside = True

    def leave(self) -> None:
        """It has ended: from now on nothing is raised here; what was on its way is taken back. May be said twice."""
        self._inside = False
        while self._raising:
            time.sleep(0.0001)
        if self._raised:
            self._raised = False
            self._take_back()

    def _take_back(self) -> None:
        """In its own thread: what may still be on its way is replaced by an error that is caught here.

        To raise nothing instead would take it back too, but leave the interpreter told of an error that nobody catches:
        up to Python 3.12 all threads then look for it at every call for ever, and in 3.11 a traced call never ends.
        """
        try:
            self._raise(_TakenBack)
            while True:
                pass
        except _TakenBack:
            pass

    def _raise(self, error: type[BaseException]) -> None:
        _raise_in_thread(ctypes.c_ulong(self._thread), ctypes.py_object(error))


class Threads:
    """At most `size` runner threads; they are kept until the process ends."""

    def __init__(self, size: int, work: Work) -> None:
        self.size, self._work = size, work
        self._lock = threading.Lock()
        self._parked = threading.Semaphore(0)
        self._count = self._resting = 0
        self._ended = False
        self._here = threading.local()
        #: Makes the place of a runner, in that runner.
        self.make_place: Callable[[], Any] = ThreadPlace

    @property
    def awake(self) -> int:
        """Runners that run something or look for it."""
        return self._count - self._resting

    def call(self, count: int = 1) -> bool:
        """Have so many more runners look for jobs; false when there are no more."""
        called = False
        for _ in range(count):
            with self._lock:
                resting = self._resting > 0
                if resting:
                    self._resting -= 1
                elif self._count >= self.size:
                    break
                else:
                    self._count += 1
            if resting:
                self._parked.release()
            else:
                threading.Thread(target=self._serve, name=f"opsq-runner-{self._count}", daemon=True).start()
            called = True
        return called

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function of a task, made so that it can be interrupted where it runs."""
        here = self._here

        def interruptible(*args: Any, **kwargs: Any) -> Any:
            place = here.place
            try:
                try:
                    place.enter()
                    value = function(*args, **kwargs)
                finally:
                    place.leave()
            except BaseException:
                place.leave()  # again: an interrupt may have come while it was left
                if place.job.verdict is not None:
                    raise place.job.verdict from None
                raise
            if place.job.verdict is not None:
                raise place.job.verdict
            return value

        return interruptible

    def serve(self, work: Callable[[], None]) -> None:
        """The work of the process, in this thread."""
        work()

    def end(self) -> None:
        """No more jobs come: the runners end."""
        self._ended = True
        self._parked.release(self.size)

    def _serve(self) -> None:
        """A runner, until all end."""
        self._here.place = place = self.make_place()
        while not self._ended:
            try:
                found = self._run_next(place)
            except BaseException:
                logger.critical("a runner stumbled over a task and goes on", exc_info=True)
                continue
            if not found and self._may_rest():
                self._work.ended()
                self._parked.acquire()

    def _run_next(self, place: Any) -> bool:
        """Take a job and run it; false when there is none."""
        job = self._work.take()
        if job is None:
            return False
        place.job, job.place = job, place
        self._work.run(job)
        return True

    def _may_rest(self) -> bool:
        """Whether a runner that has found nothing rests until it is called; it counts as resting from now on."""
        with self._lock:
            self._resting += 1
        return True
