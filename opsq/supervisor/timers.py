"""Calls at a later time, for one loop."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable


class Timer:
    """One call to come."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Do not call it."""
        self.call = None


class Timers:
    """All calls to come, the next one first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    def later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Call it after a while."""
        timer = Timer(call)
        heapq.heappush(self._heap, (time.monotonic() + delay_s, next(self._numbers), timer))
        return timer

    def next_s(self) -> float | None:
        """Seconds until the next call; None when there is none."""
        while self._heap and self._heap[0][2].call is None:
            heapq.heappop(self._heap)
        return max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None

    def run_due(self) -> None:
        """Make the calls whose time has come."""
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            call, timer.call = timer.call, None
            if call is not None:
                call()
