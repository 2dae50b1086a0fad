"""The limit of a child's memory: which task has grown it, and when it is replaced. Nothing is measured without a limit.

For a child that grows inside a long task its parent looks (`watchdog.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from opsq.exceptions import DecodeError
from opsq.protocol.envelope import parse
from opsq.runtime.usage import peak_kib
from opsq.worker.batch import Held
from opsq.worker.runs import Run, Runs

logger = logging.getLogger("opsq.worker")

#: Tasks whose growth is kept; more are "others".
MOST_TASKS = 1000
#: Most tasks that are named as those that ran while it grew.
NAMED = 3


class Growth:
    """What a child's tasks have added to the most memory it ever had."""

    def __init__(self, limit_kib: int) -> None:
        self._limit_kib = limit_kib
        self._peak_kib = peak_kib()
        self._by_task: dict[str, list[int]] = {}
        #: What runs now, in children that run many at once.
        self.now_running: Callable[[], Iterable[Held]] = tuple

    def measured(self, run: Callable[[Held], bool]) -> Callable[[Held], bool]:
        """The same as `run`, which runs a message; what it adds is noted."""

        def run_and_look(held: Held) -> bool:
            done = run(held)
            self.ended(held)
            return done

        return run_and_look

    def ended(self, held: Held) -> None:
        """A message has run: what was added since the last one is its task's (of many: of the first to end)."""
        peak = peak_kib()
        if peak > self._peak_kib:
            self._note(_task_of(held.raw), peak - self._peak_kib)
            self._peak_kib = peak

    def pass_over(self) -> None:
        """Nothing runs: what was added since the last one has ended is no task's."""
        self._peak_kib = max(self._peak_kib, peak_kib())

    def _note(self, task: str, grown_kib: int) -> None:
        if task not in self._by_task and len(self._by_task) >= MOST_TASKS:
            task = "others"
        known = self._by_task.setdefault(task, [0, 0])
        known[0] += grown_kib
        known[1] += 1

    def is_too_large(self) -> bool:
        """Whether this child has grown beyond its limit; says so, and which task has added most."""
        peak = max(self._peak_kib, peak_kib())
        if peak <= self._limit_kib:
            return False
        names = sorted({_task_of(held.raw) for held in self.now_running()})
        if names and peak > self._peak_kib:
            self._note(" or ".join(names[:NAMED]), peak - self._peak_kib)
        words = "no task grew it since it began"
        if self._by_task:
            task, (grown_kib, runs) = max(self._by_task.items(), key=lambda each: each[1][0])
            words = f"{task} grew it most, by {grown_kib:,} KiB in {runs} run{'s' if runs > 1 else ''}"
        logger.warning(
            "this child has grown beyond its limit of memory and is replaced: %s KiB of %s; %s",
            f"{peak:,}",
            f"{self._limit_kib:,}",
            words,
        )
        return True


class MeasuredRuns(Runs):
    """What runs at the same time in a child whose memory is limited."""

    def __init__(self, growth: Growth, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._growth = growth
        growth.now_running = lambda: [run.held for run in list(self.running.values())]

    def ended(self, run: Run, ran: bool) -> None:
        """It is settled, and what was added is noted."""
        with self._lock:
            self._growth.ended(run.held)
        super().ended(run, ran)


def _task_of(raw: bytes) -> str:
    try:
        return parse(raw).headers.task
    except DecodeError:
        return "a broken message"
