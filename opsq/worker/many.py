"""The line of a child that runs many messages at once: threads, asyncio, gevent, eventlet.

One thread (or greenlet) speaks with the broker: it leases, opens a batch to the runners, settles what has ended, and
sleeps when there is nothing to do. Never more is leased than can be begun, except for short tasks, of which one runner
does many; what is not begun while all runners are busy goes back at once.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from opsq.concurrency.base import Executor
from opsq.exceptions import BrokerError
from opsq.worker import slots
from opsq.worker.alarm import Alarm
from opsq.worker.attempt import Attempts
from opsq.worker.batch import SPAN_S, Batch
from opsq.worker.crowd import Crowd
from opsq.worker.idle import POLL_S, stay_away
from opsq.worker.lines import Lines
from opsq.worker.memory import MeasuredRuns
from opsq.worker.runs import Runs
from opsq.worker.shared_ledger import SharedLedger
from opsq.worker.slots import Slot, Slots
from opsq.worker.upkeep import Caps, Upkeep

logger = logging.getLogger("opsq.worker")

#: Runners that use less of a CPU than this while messages wait are waiting themselves: others join them.
BUSY = 0.7
#: So many long tasks are begun together.
STEP = 100


class ManyLine(Upkeep):
    """The work of one child that runs as many messages at once as its caps say."""

    attempts: Attempts
    executor: Executor

    def __init__(
        self,
        table: Slots,
        slot: Slot,
        ledger: SharedLedger,
        lines: Lines,
        caps: Caps,
        lock: AbstractContextManager[Any],
    ) -> None:
        self.alarm = Alarm()
        super().__init__(table, slot, ledger, self.alarm, lines, caps)
        self._size = caps.at_once
        self.batch = Batch(caps.prefetch)
        make = Runs if self.growth is None else functools.partial(MeasuredRuns, self.growth)
        self.runs = ledger.runs = make(slot, ledger.waiting, self._may_begin, self.alarm.ring, lock)
        #: Whether the tasks of the last batch run on.
        self._long = False
        self._crowd = Crowd(table.words)
        self._again_s, self._armed_at = POLL_S[0], 0.0

    def equip(self, attempts: Attempts, executor: Executor, on_work: Callable[[], None], lease_s: float) -> None:
        """Who runs messages. `on_work` is called when it is connected and begins to take them."""
        self.attempts, self.executor, self._on_work, self._lease_s = attempts, executor, on_work, lease_s

    def run(self) -> None:
        """Work until told to stop and all that runs has ended."""
        self._recover("")
        self.slot.words[slots.STATE] = slots.IDLE
        self._on_work()
        while True:
            self._look_at_page()
            if self._over():
                break
            busy = bool(self.runs or self.ledger.waiting)
            self.slot.words[slots.STATE] = slots.BUSY if busy else slots.IDLE
            self._guarded(self._step)
            self.done = self.slot.words[slots.DONE] = self.runs.done
            self.slot.words[slots.RUNNING] = len(self.runs)
            self._look_at_memory()
        self._finish()

    def _look_at_page(self) -> None:
        super()._look_at_page()
        words = self.slot.words
        if number := int(words[slots.END_NUMBER]):
            self.runs.end_revoked(number, int(words[slots.END_SIGNAL]))
            words[slots.END_NUMBER] = 0

    def _over(self) -> bool:
        return self._ending() and not self.runs and not self.ledger.waiting

    def _ending(self) -> bool:
        return self.stopping or 0 < self.caps.tasks <= self.runs.done + len(self.runs)

    def _may_begin(self) -> bool:
        """Asked by a runner before each message."""
        page = self.page
        if page[slots.GENERATION] != self._generation or self.ledger.doubt:
            return False
        return not self._ending() and time.monotonic_ns() <= page[slots.DEADLINE_NS]

    def _may_leave(self) -> bool:
        return not self.runs

    def _recover(self, reason: str, elsewhere: BrokerError | None = None) -> None:
        self.runs.close()
        super()._recover(reason, elsewhere)

    def _meanwhile(self) -> float | None:
        """Time limits hold whatever the broker does; seconds until the next one."""
        if self.runs.stuck and not self.stopping:
            self.stopping = True
        if self.runs.stuck and self.runs.give_up():
            self._on_work()  # wakes the parent, which watches the stuck ones
        return self.runs.look_at_limits()

    def _end_threads(self) -> None:
        self.executor.end()

    # -- one step ---------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        ledger = self.ledger
        next_limit_s = self._meanwhile()
        with ledger.io:
            if ledger.doubt:
                self.runs.close()
                ledger.compare()
        if self._ending():
            ledger.return_waiting()
        if ledger.waiting:
            self._begin_batch()
        else:
            self._turn(next_limit_s)

    def _wanted(self) -> int:
        """How many messages more: none while all runners are busy; for long tasks as many as can begin."""
        running = len(self.runs)
        free = self._size - running
        if free <= 0 or self._ending():
            return 0
        want = min(max(self.batch.want, STEP), free, self.batch.cap) if self._long else self.batch.want
        if self.caps.tasks:
            want = min(want, self.caps.tasks - self.runs.done - running)
        return want

    def _turn(self, next_limit_s: float | None) -> None:
        """Settle what has ended and lease more; when there is nothing to tell, wait."""
        ledger, consumer = self.ledger, self.ledger.consumer
        want = self._wanted()
        if consumer.listening and time.monotonic() - self._armed_at > self._lease_s:
            self._crowd.fed()
            self._armed_at = time.monotonic()
            consumer.arm(holds=len(self.runs) > 0)  # a notice may have got lost with its connection
        if ledger.idle and not self.attempts.herald.events and (consumer.listening or not want):
            self._sleep(want, next_limit_s)
            return
        if not ledger.awaits_answer:
            ledger.send(want, armed=want > 0 and consumer.tracks)
            self._armed_at = time.monotonic()
        turn = ledger.receive()
        if turn.leased:
            self._again_s = POLL_S[0]
            self._crowd.fed()
        elif turn.unregistered:
            self.alarm.pause(0.05)
        elif want and not consumer.tracks:
            self._sleep(want, min(self._again_s, next_limit_s or self._again_s))
            self._again_s = min(self._again_s * 2, POLL_S[1])

    def _sleep(self, want: int, next_limit_s: float | None) -> None:
        """Until a task ends, the parent wants something, a limit passes, or (if there is room) the broker has more."""
        consumer = self.ledger.consumer
        listens = want > 0 and consumer.listening
        if not (listens and consumer.noticed):
            until = self._lease_s if next_limit_s is None else min(self._lease_s, next_limit_s)
            if self.alarm.wait(until, consumer if listens else None):
                consumer.listening = False
                return
            if listens and consumer.readable(0):
                consumer.read_notices()
        if listens and consumer.noticed:
            consumer.listening = False
            if stay_away(consumer, self._crowd, self.alarm.wait):
                consumer.arm(holds=len(self.runs) > 0)

    # -- a batch ----------------------------------------------------------------------------------------------------

    def _begin_batch(self) -> None:
        """Have runners begin all that is in hand; what they cannot begin goes back."""
        ledger, runs = self.ledger, self.runs
        if time.monotonic_ns() > self.page[slots.DEADLINE_NS]:
            self._await_lease()
            return
        self.attempts.herald.look()
        if self.attempts.gate.stopped:  # of the batch before: its messages ask for it when they are opened
            self._until_opened()
        self.attempts.gate.look(ledger.waiting)
        count = ledger.begin_batch()
        self.lines.hold()
        ran, begun, begin = runs.done, runs.begun, time.monotonic()
        with ledger.io:
            if self._may_run_ahead(count):
                ledger.send(self._wanted())
        runs.allowed = count
        self.executor.call(count if self._long else 1)
        gave_back = self._watch_batch()
        runs.close()
        self.lines.flush()
        begun = runs.begun - begun
        self.batch.ran(begun, time.monotonic() - begin, gave_back)
        self._long = gave_back or (runs.done - ran) * 2 < begun

    def _until_opened(self) -> None:
        while any(not run.opened for run in list(self.runs.running.values())):
            time.sleep(0.0002)

    def _watch_batch(self) -> bool:
        """Until all in hand has begun; runners that wait get company. True when the rest went back."""
        ledger, runs = self.ledger, self.runs
        begun, cpu, since = runs.begun, time.process_time(), time.monotonic()
        while ledger.waiting and self._may_begin():
            left = since + SPAN_S - time.monotonic()
            if left > 0:
                if self.alarm.wait(left):
                    return False
                continue
            self._meanwhile()
            now = time.monotonic()
            stuck = runs.begun == begun
            if stuck or time.process_time() - cpu < BUSY * (now - since):
                more = self.executor.call(min(max(self.executor.awake, 1), len(ledger.waiting)))
                if not more and stuck:
                    self._give_back()
                    return True
            self.lines.flush()
            self.lines.hold()
            begun, cpu, since = runs.begun, time.process_time(), now
        return False

    def _may_run_ahead(self, count: int) -> bool:
        """Ask for the next batch before this one runs: only for short tasks, and within the caps."""
        if self._long or self.caps.tasks or not self.batch.leaves_room(count):
            return False
        return not (self.ledger.awaits_answer or self._ending())

    def _give_back(self) -> None:
        """All runners are busy: what has not begun goes back, also what waits unread."""
        ledger = self.ledger
        self.runs.close()
        with ledger.io:
            if ledger.awaits_answer:
                ledger.receive()
            ledger.return_waiting()
            ledger.send(0)
            ledger.receive()
