"""How large a batch is, and the thread that watches it: nothing waits behind a long task.

What is in hand is a deque: the runner takes from one end; while a batch is on, the stall thread looks every few
milliseconds whether the same message still runs, and if so has the rest given back from the other end. Both ends of a
deque are atomic, so neither needs a lock for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from opsq.broker.consumer import MOST
from opsq.protocol.envelope import Envelope

#: How long a batch may take, and how often the stall thread looks, in seconds.
SPAN_S = 0.005
#: After so many looks without a batch the stall thread sleeps until the next one.
QUIET = 10


class Held(msgspec.Struct, gc=False):
    """One message in hand, not started."""

    number: int
    queue: int
    source: str
    raw: bytes
    #: What the bytes say, once somebody has read them.
    message: Envelope | None = None


class Batch:
    """How many messages the next turn should ask for."""

    def __init__(self, cap: int = 0) -> None:
        """`cap`: the most messages in hand, 0 = those that run and those that come next, each `SPAN_S` of work."""
        self.cap = cap if 0 < cap < 2 * MOST else 2 * MOST
        self.want = 1
        self._average_s = SPAN_S

    def leaves_room(self, count: int) -> bool:
        """Whether another batch may be asked for before one of `count` runs: only for short tasks, within the cap."""
        return count >= 2 and self.want <= count <= self.cap - self.want

    def ran(self, count: int, seconds: float, stalled: bool) -> None:
        """A batch of `count` took so long: ask for as many as fit into the span; one, when it had stalled."""
        if not count:
            return
        self._average_s += (seconds / count - self._average_s) * 0.5
        fit = 1 if stalled else int(SPAN_S / max(self._average_s, 1e-7))
        self.want = max(1, min(fit, self.want * 4, self.cap, MOST))


class Stall:
    """The thread that looks. `current` tells the number of the message that runs (0 = none)."""

    def __init__(self, current: Callable[[], int], give_back: Callable[[], None]) -> None:
        self._current, self._give_back = current, give_back
        self._on = threading.Event()
        self._ended = False
        self._thread: threading.Thread | None = None
        #: Whether a batch is on; whether one of its messages ran so long that the rest was given back.
        self.watching = self.stalled = False

    def watch(self) -> None:
        """A batch begins."""
        self.stalled, self.watching = False, True
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="opsq-stall", daemon=True)
            self._thread.start()
        if not self._on.is_set():
            self._on.set()

    def rest(self) -> None:
        """The batch is over; after some looks without another one the thread sleeps."""
        self.watching = False

    def end(self) -> None:
        """The child ends."""
        self._ended = True
        self._on.set()

    def _run(self) -> None:
        pause = threading.Event()
        last = quiet = 0
        while self._on.wait() and not self._ended:
            pause.wait(SPAN_S)
            now = self._current()
            if self.watching:
                quiet = 0
                if now and now == last and not self.stalled:
                    self.stalled = True
                    self._give_back()
            else:
                quiet += 1
                if quiet == QUIET:
                    self._on.clear()
                    if self.watching:
                        self._on.set()
            last = now
