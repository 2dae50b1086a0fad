"""Waiting for results in an event loop: nothing blocks it, and all who wait in loops share one thread that reads."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing, suppress

from opsq.backends.waiting import RETRY_S, Subscriber, Waiter
from opsq.runtime.aside import aside, submit

#: That thread looks so often whether anybody still waits (seconds).
IDLE_S = 1.0

#: (key, record) each time.
AsyncUpdates = AsyncGenerator[tuple[bytes, bytes], None]


class _InLoop(Waiter):
    """One who waits in an event loop, and never reads the connection."""

    __slots__ = ("_loop", "entered", "event", "gone")

    leads = False

    def __init__(self, keys: Sequence[bytes]) -> None:
        import asyncio  # programs without an event loop do not pay for it

        super().__init__(keys)
        self._loop, self.event = asyncio.get_running_loop(), asyncio.Event()
        self.entered = self.gone = False

    def notify(self) -> None:
        """Let its coroutine look. The subscriber's lock is held."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self.event.set)


class LoopSubscriber(Subscriber):
    """The connection on which one server announces what is stored, also to event loops.

    Its lock may be held while a server is connected to: no loop takes it, threads beside them do.
    """

    def _start_anew(self) -> None:
        super()._start_anew()
        self._in_loops = 0

    async def updates_in_loop(self, keys: Sequence[bytes], until: float | None, interval_s: float) -> AsyncUpdates:
        """What `updates` yields. The caller closes it when enough has come."""
        import asyncio

        waiter = _InLoop(keys)
        try:
            await aside(self._enter_from_loop, waiter)
            for news in waiter.news(until, interval_s):
                if isinstance(news, tuple):
                    yield news
                    continue
                with suppress(TimeoutError):
                    await asyncio.wait_for(waiter.event.wait(), max(news - time.monotonic(), 0))
                waiter.event.clear()
        finally:
            submit(self._leave_from_loop, waiter)

    def _enter_from_loop(self, waiter: _InLoop) -> None:
        with self._lock:
            if waiter.gone:
                return
            waiter.entered = True
            self._in_loops += 1
            self._enter(waiter)
            if self._reader is None:
                self._reader = Waiter(())
                threading.Thread(target=self._read_for_loops, args=(self._reader,), daemon=True).start()

    def _leave_from_loop(self, waiter: _InLoop) -> None:
        with self._lock:
            waiter.gone = True
            if waiter.entered:
                self._in_loops -= 1
                self._leave(waiter)

    def _read_for_loops(self, reader: Waiter) -> None:
        """Read, or be ready to when those leave who read now, until nobody waits in a loop any more."""
        while self._reader is reader:
            try:
                with closing(self._updates(reader, None, IDLE_S)) as updates:
                    for _ in updates:
                        with self._lock:
                            if not self._in_loops:
                                self._reader = None
                                break
            except Exception as error:
                with self._lock:
                    reader.error = None
                    self._tell_all(error)
                time.sleep(RETRY_S)  # those who were told leave meanwhile
