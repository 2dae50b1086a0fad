"""What a worker says of itself, in Redis and in its events, and how its children have ended, in words."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opsq.broker.leftovers import Leftovers
from opsq.worker import slots
from opsq.worker.child import Setup
from opsq.worker.children import Child
from opsq.worker.slots import Slots
from opsq.worker.terms import Terms


@dataclass(frozen=True, slots=True)
class Plan:
    """What a worker is to be: all that its parent needs besides the app. `folder`: for its mapped file;
    `leftovers`: what Celery's workers have left on its queues; `terms`: what a reload may change."""

    setup: Setup
    terms: Terms
    folder: Path
    version: str
    host: str
    leftovers: Leftovers


class Record:
    """What a worker is and does."""

    def __init__(self, plan: Plan, table: Slots) -> None:
        self._plan, self._table, self.terms = plan, table, plan.terms
        #: When it has started (Unix seconds).
        self.since = time.time()
        self._processed = 0
        #: Rates of this worker alone that were set by command: task -> rate.
        self.rate_limits: dict[str, str] = {}

    def take(self, terms: Terms) -> None:
        """There are other terms from now on."""
        self.terms = terms

    def ended(self, done: int) -> None:
        """A child has ended that had run so many tasks."""
        self._processed += done

    def count(self) -> tuple[int, int]:
        """How many tasks run now, and how many have run."""
        used = list(self._table.used())
        done = sum(slot.words[slots.DONE] for slot in used if slot.words[slots.STATE] != slots.SETTLING)
        return sum(slot.running for slot in used), self._processed + done

    def describe(self) -> dict[str, Any]:
        """All of it, for those who look into Redis."""
        setup, terms = self._plan.setup, self.terms
        children = []
        for slot in self._table.used():
            words = slot.words
            started = words[slots.STARTED_NS] if words[slots.CURRENT] else 0
            children.append(
                {
                    "slot": slot.index,
                    "pid": words[slots.PID],
                    "number": words[slots.CURRENT] or None,
                    "running": slot.running,
                    "most": terms.caps.at_once,
                    "since": time.time() - (time.monotonic_ns() - started) / 1e9 if started else None,
                }
            )
        return {
            "id": setup.worker_id,
            "node": setup.node,
            "pid": os.getpid(),
            "host": self._plan.host,
            "since": self.since,
            "lease": setup.lease_s,
            "concurrency": terms.most * terms.caps.at_once,
            "least": terms.least,
            "autoscale": terms.scales,
            "pool": setup.pool,
            "queues": terms.queues,
            "version": self._plan.version,
            "tasks": sorted(name for name in terms.tasks if not name.startswith("celery.")),
            "children": children,
            "processed": self.count()[1],
            "rate_limits": self.rate_limits,
        }


def how_it_ended(dead: Child, status: int | None) -> str:
    """In words, when it was not by itself; empty when it was."""
    if dead.killed:
        return f"was killed: {dead.killed}"
    if status is None:
        return "was killed with its template"
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    code = os.waitstatus_to_exitcode(status)
    return f"exited with code {code}" if code else ""
