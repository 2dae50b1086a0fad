"""What time it is, and waiting, by the machine's clocks."""

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
