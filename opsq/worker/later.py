"""Messages for later: when their time has come they are put into their lists, in the thread of the leases.

Between two due times nothing is asked: the delayed sets are tracked, so an earlier message than the next one is told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from opsq.broker.broker import LUA
from opsq.datastore import keys
from opsq.datastore.priorities import Priorities
from opsq.datastore.scripts import Script

logger = logging.getLogger("opsq.worker")

PROMOTE = Script(LUA / "promote.lua")

#: Delayed messages moved in one step.
MOST = 500
#: Until messages that are due and cannot be moved are tried again (seconds).
STUCK_S = 1.0


class Later:
    """The delayed sets of a worker's queues."""

    def __init__(self, queues: Sequence[str], key_prefix: str, priorities: Priorities) -> None:
        self._sets = [key_prefix + keys.delayed(name) for name in queues]
        self._lists = [
            [
                each
                for step in priorities.steps
                for each in ("" if step == 0 else step, key_prefix + priorities.at_step(name, step))
            ]
            for name in queues
        ]
        #: Something has changed in them, or more is due than was moved: look again soon.
        self.noticed = False
        #: By the monotonic clock: when it was asked last, and when the next message is due.
        self._asked = 0.0
        self._next: float | None = None
        self._told: set[str] = set()

    def commands(self, tracks: bool) -> list[tuple[Any, ...]]:
        """For each queue: move what is due, and ask to be told when the delayed set changes."""
        self.noticed, self._asked = False, time.monotonic()
        found: list[tuple[Any, ...]] = []
        for delayed, lists in zip(self._sets, self._lists, strict=True):
            if tracks:
                found.append(("CLIENT", "CACHING", "YES"))
            found.append(("EVALSHA", PROMOTE.sha, 1, delayed, MOST, "", *lists))
        return found

    def take(self, answers: Sequence[Any]) -> None:
        """The answers to these commands."""
        found = [answer for answer in answers if isinstance(answer, list)]
        errors = {str(answer) for answer in answers if isinstance(answer, Exception)}
        for error in errors - self._told:
            logger.error("delayed messages cannot be moved to their queue: %s", error)
        self._told = errors
        # Due when the server looked, and yet not moved: its list cannot be written, so it is not asked again and again.
        # What has become due since then is asked for at once.
        waits = [
            STUCK_S if float(first) <= now and not moved else (float(first) - now) / 1000
            for moved, first, now in found
            if first != b""
        ]
        self._next = self._asked + min(waits) if waits else None
        if any(moved >= MOST for moved, _, _ in found):
            self.noticed = True

    @property
    def due_in_s(self) -> float | None:
        """Seconds until the next message is due (0: it is); None when there is none."""
        return None if self._next is None else max(self._next - time.monotonic(), 0.0)
