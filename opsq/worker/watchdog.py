"""Limits of what runs: the parent reads what runs since when, interrupts at the soft limit, kills at the hard one.

While no task with a limit runs, nothing looks. The first one that begins calls (a word in the page, a byte in a pipe).
Memory is looked at every second, if it is limited: a child inside a long task cannot look itself.
"""

from __future__ import annotations

import logging
import signal
import time

from opsq.runtime import usage
from opsq.worker import slots
from opsq.worker.children import Child, Children
from opsq.worker.slots import Slot

logger = logging.getLogger("opsq.worker")

#: How often it looks for new limits while some task has one (seconds).
LOOK_S = 0.05
#: Between two looks at the children's memory (seconds).
MEMORY_LOOK_S = 1.0


class Watchdog:
    """Looks when told (`look`), and says when it wants to look again."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self._words = children.table.words

    def look(self) -> float | None:
        """Act on the limits that have passed; seconds until the next look, None = until somebody calls."""
        if not self._words[slots.WATCHING]:
            return None
        self._words[slots.WATCHING] = 0
        waits = [self._one(child, time.monotonic_ns()) for child in list(self._children.alive.values())]
        limited = [wait for wait in waits if wait is not None]
        if not limited:
            return None
        self._words[slots.WATCHING] = 1
        return max(min(*limited, LOOK_S), 0.0)

    def _one(self, child: Child, now_ns: int) -> float | None:
        words = child.slot.words
        number, soft_ns, hard_ns = words[slots.CURRENT], words[slots.SOFT_NS], words[slots.HARD_NS]
        if not number or not (soft_ns or hard_ns) or child.killed:
            return None
        started_ns = words[slots.STARTED_NS]
        if hard_ns and now_ns >= hard_ns:
            limit_s = round((hard_ns - started_ns) / 1e9, 3)
            self._children.kill_running(child, number, int(limit_s) if limit_s == int(limit_s) else limit_s)
            return LOOK_S
        if soft_ns and now_ns >= soft_ns:
            if words[slots.SOFT_TOLD] != number:
                words[slots.SOFT_TOLD] = words[slots.SOFT_NUMBER] = number
                limit_s = round((soft_ns - started_ns) / 1e9, 3)
                logger.warning("Soft time limit (%ss) exceeded for %s", limit_s, child.slot.task_name)
            if words[slots.SOFT_NUMBER] == number:
                self._children.signal(child, signal.SIGUSR1)
            return min(LOOK_S, (hard_ns - now_ns) / 1e9) if hard_ns else LOOK_S
        return (min(point for point in (soft_ns, hard_ns) if point) - now_ns) / 1e9


class MemoryWatch:
    """The parent's look at children inside a task: one that has grown too large is replaced after it."""

    def __init__(self, children: Children) -> None:
        self._children = children
        #: KiB, 0 = no limit.
        self.limit_kib = 0
        self._look_at = 0.0

    def look(self) -> float | None:
        """Look when it is time to; seconds until the next look, None = never."""
        if not self.limit_kib:
            return None
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + MEMORY_LOOK_S
            for child in list(self._children.alive.values()):
                words = child.slot.words
                if words[slots.CURRENT] and not words[slots.LEAVE]:
                    self._look_at_one(words[slots.PID], child.slot)
        return self._look_at - now

    def _look_at_one(self, pid: int, slot: Slot) -> None:
        size_kib = (usage.resident_bytes(pid) or 0) // 1024
        if size_kib <= self.limit_kib:
            return
        slot.words[slots.LEAVE] = 1
        self._children.announce()
        logger.warning(
            "child %d has grown to %s KiB inside a task, beyond its limit of %s: it is replaced after it",
            slot.index,
            f"{size_kib:,}",
            f"{self.limit_kib:,}",
        )
