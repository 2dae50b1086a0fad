"""What wakes the parent of a worker: bytes in a pipe (from signals, children, other threads), orders, and timers."""

from __future__ import annotations

import queue
import signal
import time
from collections.abc import Callable

from opsq.runtime.bell import Bell


class Calls(Bell):
    """The parent's ear. `post` and `ring` may be used from any thread; a child may write into `writer`.

    What is read are numbers of signals, 0 for a ring.
    """

    def __init__(self) -> None:
        super().__init__()
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def post(self, order: Callable[[], None]) -> None:
        """Have the parent do something in its own thread."""
        self._orders.put(order)
        self.ring()

    def after(self, seconds: float, order: Callable[[], None]) -> None:
        """Have it done later."""
        self._timers.append((time.monotonic() + seconds, order))

    def take_signals(self) -> None:
        """From now on signals are bytes in the pipe: their numbers."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)

    @property
    def due_in_s(self) -> float | None:
        """Seconds until the next timer."""
        return max(min(when for when, _ in self._timers) - time.monotonic(), 0.0) if self._timers else None

    def obey(self) -> None:
        """Do what was ordered so far, and what is due: however fast orders come, signals are read between them."""
        for _ in range(self._orders.qsize()):
            self._orders.get_nowait()()
        now = time.monotonic()
        due = [order for when, order in self._timers if when <= now]
        self._timers = [timer for timer in self._timers if timer[0] > now]
        for order in due:
            order()
