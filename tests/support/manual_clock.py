"""A clock that a test moves by hand, in place of the machine's."""

from __future__ import annotations

from collections.abc import Sequence

from opsq.runtime.clock import Clock


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
