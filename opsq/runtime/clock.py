"""What time it is, and waiting: by the machine's clocks, or by one that a test moves by hand."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence


class Clock:
    """The machine's clocks."""

    def now(self) -> float:
        """Unix seconds; may jump when somebody sets the clock."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment; never jumps."""
        return time.monotonic()

    def wait(self, seconds: float, descriptors: Sequence[int] = ()) -> list[int]:
        """Wait so long, or until something can be read; which of the descriptors that are."""
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        return [descriptor for descriptor, _event in poll.poll(max(seconds, 0.0) * 1000)]


class ManualClock(Clock):
    """A clock that stands still, except that waiting moves it on at once."""

    def __init__(self, now: float) -> None:
        """`now`: Unix seconds."""
        self._now = now

    def now(self) -> float:
        """What it was set to."""
        return self._now

    def monotonic(self) -> float:
        """The same."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move it on."""
        self._now += seconds

    def wait(self, seconds: float, descriptors: Sequence[int] = ()) -> list[int]:
        """Move on by so much, unless something can be read."""
        found = super().wait(0, descriptors)
        if not found:
            self.advance(max(seconds, 0.0))
        return found
