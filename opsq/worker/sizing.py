"""How many children a worker has: some from the start, more while all of them are busy, fewer when they idle.

Nothing is looked at while nothing happens. A child that takes as many messages as it asked for, or whose task takes
long, calls if the parent wants to know (the word HELP). There is always one that waits for what comes next, as long as
more may be started.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from opsq.worker import slots
from opsq.worker.calls import Calls
from opsq.worker.children import Child, Children
from opsq.worker.slots import Slot, Slots
from opsq.worker.terms import AT_ONCE, MOST_CHILDREN, Terms

logger = logging.getLogger("opsq.worker")

#: All children are busy: still so after this time, another one is started (seconds).
BUSY_S = 0.005
#: Until the next call for help is listened to, when one was in vain (seconds).
PAUSE_S = 0.02
#: With autoscale: between two looks at how long messages wait, while all children are busy (seconds).
ASK_S = 0.2
#: Growing again within this time, twice as many are started at once (seconds).
AGAIN_S = 0.5
#: A child that lived shorter is replaced only after as long (seconds).
SHORT_LIFE_S = 1.0
#: How often idle children are counted while there are more than are kept in any case (seconds).
COUNT_S = 1.0
#: Children beyond those that are kept end when they were not needed for so long (seconds; Celery's variable).
KEEPALIVE_S = float(os.environ.get("AUTOSCALE_KEEPALIVE") or 30)


class Registry(Protocol):
    """Who makes consumers known to the broker before they take anything (the thread of the leases)."""

    def register(self, indexes: list[int], queues: list[str], then: Callable[[], None]) -> None:
        """Register the consumers of slots with queues, then call."""


class Waits(Protocol):
    """Whether messages wait too long (autoscale); asks the broker, and calls when it knows."""

    def ask(self, then: Callable[[bool], None]) -> None:
        """Ask."""


class Sizing:
    """The number of children, and their starts; all in the parent's own thread."""

    def __init__(
        self,
        table: Slots,
        children: Children,
        registry: Registry,
        calls: Calls,
        waits: Waits,
        terms: Terms,
        on_terms: Callable[[Terms], None],
    ) -> None:
        """`on_terms`: told of other bounds."""
        self._table, self._children, self._registry, self._calls, self._waits = table, children, registry, calls, waits
        self.terms, self._on_terms = terms, on_terms
        #: As many as there are to be now.
        self.target = terms.least
        self.stopping = False
        self._pending: dict[int, Slot] = {}
        self._registered_for: dict[int, list[str]] = {}
        self._held_until = 0.0
        self._look_at = 0.0
        self._busy_since: float | None = None
        self._in_vain = True
        self._asking = False
        self._grew_at = -AGAIN_S
        self._step = 1
        self._count_at, self._idlest, self._window_ends = 0.0, 0, 0.0

    # -- starting ---------------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Start as many as are missing."""
        missing = self.target - len(self._children.alive) - len(self._pending)
        if self.stopping or missing <= 0:
            return
        now = time.monotonic()
        if now < self._held_until:
            self._calls.after(self._held_until - now, self.fill)
            return
        found = self._table.free(missing)
        for slot in found:
            slot.clear()
            slot.words[slots.STATE] = slots.STARTING
        self._register(found)

    def _register(self, found: list[Slot]) -> None:
        if not found:
            return
        queues = self.terms.queues
        for slot in found:
            self._pending[slot.index], self._registered_for[slot.index] = slot, queues
        indexes = [slot.index for slot in found]
        self._registry.register(indexes, queues, lambda: self._calls.post(lambda: self._fork(found)))

    def _fork(self, found: list[Slot]) -> None:
        if self.stopping:
            return
        if self._children.newest is None:  # a template starts; `renew` is called when it is ready
            return
        late = [slot for slot in found if self._registered_for[slot.index] != self.terms.queues]
        for slot in found:
            if slot not in late and self._pending.pop(slot.index, None) is not None:
                self._children.fork(slot)
        self._register(late)

    def renew(self, terms: Terms) -> None:
        """There are new terms, and a template that may fork."""
        self.terms = terms
        self.target = min(max(self.target, terms.least), terms.most)
        self._look_at = 0.0
        self._register(list(self._pending.values()))
        self.fill()

    def resize(self, least: int, most: int) -> None:
        """Between which numbers it is to move from now on; surplus children end when they idle, or after their task."""
        self.terms = replace(self.terms, least=least, most=most)
        self._on_terms(self.terms)
        self.target = min(max(self.target, least), most)
        self._look_at = 0.0
        self._end(len(self._children.alive) - self.target)
        self.fill()

    def grow(self, more: int) -> None:
        """So many more children at most (or fewer, where negative); without autoscale also so many more at least."""
        terms = self.terms
        most = min(max(terms.most + more, 1), MOST_CHILDREN)
        self.resize(min(terms.least, most) if terms.scales else min(most, AT_ONCE), most)

    @property
    def is_full(self) -> bool:
        """Whether as many children are there as there are to be."""
        return len(self._children.alive) >= self.target

    def ended(self, dead: Child, by_itself: bool) -> None:
        """A child has ended; one that had hardly begun is replaced a little later."""
        lived = time.monotonic() - dead.born_at
        if lived < SHORT_LIFE_S and not dead.killed and not by_itself:
            self._held_until = time.monotonic() + SHORT_LIFE_S
        self.fill()

    # -- growing and shrinking --------------------------------------------------------------------------------------

    def look(self) -> float | None:
        """Grow or shrink if it is time to; seconds until the next look, None = until somebody calls."""
        if self.stopping:
            return None
        now = time.monotonic()
        waits = [self._look_whether_to_grow(now), self._look_whether_to_shrink(now)]
        return min((wait for wait in waits if wait is not None), default=None)

    def _look_whether_to_grow(self, now: float) -> float | None:
        words = self._table.words
        if self.target >= self.terms.most:
            words[slots.HELP] = 0
            return None
        if words[slots.HELP] or self._asking:
            return None
        if now < self._look_at:
            return self._look_at - now
        if self._somebody_is_free() and not self._begin_to_listen():
            self._look_at = now + PAUSE_S
            return PAUSE_S
        if words[slots.HELP]:
            return None
        if self._busy_since is None:
            self._busy_since = now
        if now - self._busy_since < BUSY_S and not self._all_stalled():
            self._look_at = self._busy_since + BUSY_S
            return self._look_at - now
        self._busy_since, self._look_at = None, now + PAUSE_S
        if self.terms.scales:
            self._asking, self._look_at = True, now + ASK_S
            self._waits.ask(self._told)
            return None
        self._grow(now)
        return PAUSE_S

    def _begin_to_listen(self) -> bool:
        """Somebody is free: listen to calls, but not to each of many that are in vain; false = not yet.

        Whoever becomes busy after the second look calls.
        """
        self._busy_since, self._in_vain = None, not self._in_vain
        if self._in_vain:
            return False
        self._table.words[slots.HELP] = 1
        if not self._somebody_is_free():
            self._table.words[slots.HELP] = 0
        return True

    def _somebody_is_free(self) -> bool:
        return bool(self._pending or len(self._children.alive) < self.target or self._idle())

    def _told(self, waits_too_long: bool) -> None:
        self._asking = False
        if waits_too_long and not self._idle():
            self._grow(time.monotonic())

    def _grow(self, now: float) -> None:
        self._step = self._step * 2 if now - self._grew_at < AGAIN_S else 1
        self._grew_at = now
        before, self.target = self.target, min(self.target + self._step, self.terms.most)
        logger.debug("all children are busy: %d -> %d", before, self.target)
        self._window_ends = 0.0
        self.fill()

    def _look_whether_to_shrink(self, now: float) -> float | None:
        if self.target <= self.terms.least:
            return None
        if now < self._count_at:
            return self._count_at - now
        self._count_at = now + min(COUNT_S, KEEPALIVE_S / 4)
        idle = len(self._idle())
        if not self._window_ends:
            self._window_ends, self._idlest = now + KEEPALIVE_S, idle
        self._idlest = min(self._idlest, idle)
        if now >= self._window_ends:
            self._window_ends = 0.0
            surplus = min(self._idlest - 1, self.target - self.terms.least)
            if surplus > 0:
                logger.debug("%d children were not needed for %g s and end", surplus, KEEPALIVE_S)
                self.target -= surplus
                self._end(surplus)
        return self._count_at - now

    def _end(self, count: int) -> None:
        """Have so many children end; those that idle first, the others after what they run."""
        staying = [child for child in self._children.alive.values() if not child.slot.words[slots.LEAVE]]
        count -= len(self._children.alive) - len(staying)
        if count <= 0:
            return
        staying.sort(key=lambda child: child.slot.words[slots.STATE] != slots.IDLE)
        for child in staying[:count]:
            child.slot.words[slots.LEAVE] = 1
        self._children.announce()

    def _idle(self) -> list[Child]:
        """The children that wait for work, or begin to."""
        return [
            child
            for child in self._children.alive.values()
            if child.slot.words[slots.STATE] <= slots.IDLE and not child.slot.words[slots.LEAVE]
        ]

    def _all_stalled(self) -> bool:
        """Whether every child runs one message for some time already."""
        limit_ns = time.monotonic_ns() - int(BUSY_S * 0.8e9)
        words = [child.slot.words for child in self._children.alive.values()]
        return all(each[slots.CURRENT] and each[slots.STARTED_NS] < limit_ns for each in words)
