"""What a child runs at the same time: taken in the order of their numbers, ended in any, interrupted at their limits.

The order is what makes the slot exact: what has a number beyond the highest one that was begun had not been started;
what has a lower one, and has not been noted as ended, had been (or was about to be).
"""

from __future__ import annotations

import logging
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from opsq.concurrency.base import HardLimit, Interrupts
from opsq.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded
from opsq.execution.plan import Plan
from opsq.protocol.envelope import Envelope
from opsq.worker import slots
from opsq.worker.batch import Held
from opsq.worker.deadlines import Deadlines
from opsq.worker.slots import Slot

logger = logging.getLogger("opsq.worker")

#: How long a task may take to end after its hard time limit was raised in it, before it counts as stuck (seconds).
REACT_S = 1.0
#: How long the others may then take, before the child is killed (seconds).
GRACE_S = 10.0


class Run:
    """One message that runs. `place`: where it can be interrupted; `verdict`: the error that its hard limit means."""

    __slots__ = (
        *("began_ns", "hard_ns", "held", "message", "name", "opened", "place", "plan"),
        *("soft_ns", "stuck", "verdict"),
    )

    #: What is read of it, when it has begun; no plan: there is no such task.
    message: Envelope
    plan: Plan | None

    def __init__(self, held: Held) -> None:
        self.held = held
        self.name = ""
        self.place: Any = None
        self.verdict: BaseException | None = None
        self.began_ns = self.soft_ns = self.hard_ns = 0
        self.stuck = self.opened = False

    @property
    def is_coroutine(self) -> bool:
        """Whether its task is an `async def`."""
        return self.plan is not None and self.plan.coroutine is not None

    def limit_s(self, point_ns: int) -> float:
        """A limit as the task was given it."""
        seconds = round((point_ns - self.began_ns) / 1e9, 3)
        return int(seconds) if seconds == int(seconds) else seconds


class Runs:
    """All that run. `take` is called by whoever runs messages, the rest by the line."""

    def __init__(
        self,
        slot: Slot,
        waiting: deque[Held],
        may_begin: Callable[[], bool],
        on_limit: Callable[[], None],
        lock: AbstractContextManager[Any],
    ) -> None:
        """`on_limit`: a message with a time limit begins."""
        self.running: dict[int, Run] = {}
        #: How many messages may be begun now; how many have begun, and how many tasks have run.
        self.allowed = self.begun = self.done = 0
        self._slot, self._words = slot, slot.words
        self._waiting, self._may_begin, self._on_limit = waiting, may_begin, on_limit
        self._lock = lock
        #: All limits, and the hard ones, of what runs; how many of these have not reacted to theirs.
        self._due, self._hard = Deadlines(self.running), Deadlines(self.running)
        self._stuck = 0

    def __len__(self) -> int:
        return len(self.running)

    def numbers(self) -> list[int]:
        """The numbers of all that run. What has been taken from those that wait is among them when this returns."""
        with self._lock:
            return list(self.running)

    # -- begin and end ----------------------------------------------------------------------------------------------

    def take(self) -> Run | None:
        """The next message; None when there is none, or none may begin."""
        with self._lock:
            if self.allowed <= 0 or not self._may_begin():
                return None
            try:
                held = self._waiting.popleft()
            except IndexError:
                return None
            self.allowed -= 1
            self.begun += 1
            run = self.running[held.number] = Run(held)
            return run

    def start(self, run: Run) -> None:
        """The task's code begins: from now on its message counts as started, and all with lower numbers do."""
        with self._lock:
            if run.held.number > self._words[slots.HIGHEST]:
                self._words[slots.HIGHEST] = run.held.number

    def close(self) -> None:
        """Nothing more begins; when this returns nobody is about to begin something."""
        with self._lock:
            self.allowed = 0

    def ended(self, run: Run, ran: bool) -> None:
        """It is settled; `ran`: a task has run."""
        with self._lock:
            del self.running[run.held.number]
            self.done += ran
            self._stuck -= run.stuck
            if run.hard_ns and self._words[slots.CURRENT] == run.held.number:
                self._watch()

    # -- what attempts write down -----------------------------------------------------------------------------------

    def begin(self, number: int, now_ns: int, soft_ns: int, hard_ns: int) -> None:
        """A message that was taken begins to run."""
        if soft_ns or hard_ns:
            with self._lock:
                run = self.running[number]
                run.began_ns, run.soft_ns, run.hard_ns = now_ns, soft_ns, hard_ns
                if soft_ns:
                    self._due.add(soft_ns, number)
                if hard_ns:
                    self._due.add(hard_ns, number)
                    self._hard.add(hard_ns, number)
                    self._watch()

    def end(self) -> None:
        """Where one runs at a time this says that it has ended; here `ended` does."""

    def name(self, number: int, name: str) -> None:
        """What a message with a time limit is called."""
        self.running[number].name = name
        self._on_limit()

    def _watch(self) -> None:
        """Have the parent watch the message whose hard limit comes first, in case this process is stuck as a whole."""
        found = self._hard.first()
        first = None if found is None else self.running[found[1]]
        words = self._words
        if first is not None and words[slots.CURRENT] == first.held.number:
            return
        words[slots.CURRENT] = 0
        if first is not None:
            # Both are later by the grace, so that what lies between them is the limit.
            grace_ns = 0 if first.stuck else int(GRACE_S * 1e9)
            words[slots.SOFT_NS] = 0
            words[slots.STARTED_NS], words[slots.HARD_NS] = first.began_ns + grace_ns, first.hard_ns + grace_ns
            words[slots.CURRENT] = first.held.number

    # -- limits -----------------------------------------------------------------------------------------------------

    def look_at_limits(self) -> float | None:
        """Interrupt what has passed a limit; seconds until the next one, None when there is none."""
        while len(self._due):
            now = time.monotonic_ns()
            with self._lock:
                reached = self._due.take(now)
                if reached is None:
                    first = self._due.first()
                    return None if first is None else (first[0] - now) / 1e9
                point, number = reached
                run = self.running[number]
            if run.place is not None:
                self._passed(run, point)
        return None

    def _passed(self, run: Run, point: int) -> None:
        if point == run.soft_ns:
            run.soft_ns = 0  # the hard one may be the same
            if run.verdict is None:
                logger.warning("Soft time limit (%ss) exceeded for %s", run.limit_s(point), run.name)
                run.place.interrupt(run, SoftTimeLimitExceeded)
        elif point == run.hard_ns:
            logger.error("Hard time limit (%ss) exceeded for %s", run.limit_s(point), run.name)
            self.interrupt(run, run.verdict or TimeLimitExceeded(run.limit_s(point)))
            with self._lock:
                self._due.add(time.monotonic_ns() + int(REACT_S * 1e9), run.held.number)
        else:
            logger.error("%s goes on beyond its hard time limit: the child takes no more and is replaced", run.name)
            with self._lock:
                if run.held.number in self.running:
                    run.stuck = True
                    self._stuck += 1

    def interrupt(self, run: Run, verdict: BaseException) -> None:
        """End a task from outside: whatever it does after this, `verdict` is its outcome."""
        run.verdict = verdict
        place: Interrupts = run.place
        place.interrupt(run, HardLimit)

    def end_revoked(self, number: int, signum: int) -> None:
        """End a task because it was revoked, as far as it can be ended; SIGUSR1 is a soft limit, as in Celery."""
        run = self.running.get(number)
        if run is None or run.place is None:
            return
        if signum == getattr(signal, "SIGUSR1", None):  # which not every system has
            run.place.interrupt(run, SoftTimeLimitExceeded)
        else:
            self.interrupt(run, Terminated(signum))

    @property
    def stuck(self) -> bool:
        """Whether a task has not reacted to its hard limit."""
        return self._stuck > 0

    def give_up(self) -> bool:
        """Whether only stuck tasks are left; the parent then kills this process at once."""
        with self._lock:
            if not 0 < self._stuck == len(self.running):
                return False
            self._words[slots.CURRENT] = 0
            self._watch()
            return True
