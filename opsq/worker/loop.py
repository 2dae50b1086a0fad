"""One child's line: take, gate, run, hand back. The only place where the engine and the stores meet.

The next turn is sent before a full batch runs, so that Redis works while the tasks do. This line runs one message at a
time (prefork, solo); `many.py` is the one for pools that run many.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from opsq.broker.consumer import Turn
from opsq.datastore.trouble import TROUBLE
from opsq.worker import slots
from opsq.worker.attempt import Attempts
from opsq.worker.batch import Batch, Held, Stall
from opsq.worker.idle import Waiting
from opsq.worker.ledger import Ledger
from opsq.worker.lines import Lines
from opsq.worker.slots import Slot, Slots
from opsq.worker.upkeep import Caps, Upkeep

logger = logging.getLogger("opsq.worker")


class Line(Upkeep):
    """The work of one child that runs one message at a time, from its first turn to its end."""

    def __init__(
        self,
        table: Slots,
        slot: Slot,
        ledger: Ledger,
        attempts: Attempts,
        waiting: Waiting,
        lines: Lines,
        call_parent: Callable[[], None],
        caps: Caps,
    ) -> None:
        """`call_parent`: has the parent look, when this child begins to take messages, or has its hands full."""
        super().__init__(table, slot, ledger, waiting, lines, caps)
        self.attempts, self.waiting, self._call_parent = attempts, waiting, call_parent
        self.batch = Batch(caps.prefetch)
        self._run_one = self.growth.measured(attempts.run) if self.growth else attempts.run
        self._stall = Stall(self._current, self._give_back)

    def run(self) -> None:
        """Work until told to stop, or until this child has run as many tasks as it may."""
        self._recover("")
        self.slot.words[slots.STATE] = slots.IDLE
        self._call_parent()
        while not self._ending():
            self._look_at_page()
            if self.stopping:
                break
            self.slot.words[slots.STATE] = slots.IDLE
            # After trouble, or when in doubt, there may be something in hand, and nothing more may ever come.
            has_work = bool(self.ledger.waiting) or not self.ledger.idle or self.ledger.doubt
            if not has_work and (turn := self._guarded(self._wait_for_work)) is not None:
                self.ledger.take(turn)
                has_work = True
            if has_work:
                self.slot.words[slots.STATE] = slots.BUSY
                self._guarded(self._work)
        self._finish()

    def soft_limit_reached(self) -> bool:
        """Whether the parent says that the soft limit of the message that runs has passed, and its code runs now."""
        words = self.slot.words
        return self.attempts.runner.inside and words[slots.SOFT_NUMBER] == words[slots.CURRENT] != 0

    def _ending(self) -> bool:
        return self.stopping or 0 < self.caps.tasks <= self.done

    # -- waiting and working ----------------------------------------------------------------------------------------

    def _wait_for_work(self) -> Turn | None:
        turn = self.waiting.for_work(self.ledger.consumer, self._wanted(), lambda turn: not self.ledger.agrees(turn))
        if turn is not None and turn.unregistered and not turn.leased:
            self.waiting.pause(0.05)
        return turn

    def _wanted(self) -> int:
        if not self.caps.tasks:
            return self.batch.want
        return min(self.batch.want, self.caps.tasks - self.done)

    def _work(self) -> None:
        """Run what is in hand, and what comes with the turns meanwhile, until nothing is left."""
        ledger = self.ledger
        while True:
            with ledger.io:
                if ledger.doubt:
                    ledger.compare()
                count = ledger.begin_batch()
                if self._may_run_ahead(count):
                    ledger.send(self._wanted())
            if count:
                self._run_batch(count)
            elif ledger.idle:
                return
            with ledger.io:
                if not ledger.awaits_answer:
                    ledger.send(0 if self._ending() else self._wanted(), armed=self._may_listen())
                ledger.receive()
            if ledger.waiting and len(ledger.waiting) >= self.batch.want:
                self.waiting.let_go()

    def _may_listen(self) -> bool:
        """Whether this child goes on waiting at the broker when nothing more comes with this turn."""
        return self.waiting.held and self.ledger.consumer.tracks and not self._ending()

    def _may_run_ahead(self, count: int) -> bool:
        """Ask for the next batch before this one runs: only for short tasks, and within the caps."""
        if not self.batch.leaves_room(count) or self._ending():
            return False
        if self.caps.tasks and self.caps.tasks - self.done - count < self.batch.want:
            return False
        return not self.ledger.awaits_answer

    def _run_batch(self, count: int) -> None:
        ledger, page, most, clock_ns = self.ledger, self.page, self.caps.tasks, time.monotonic_ns
        waiting = ledger.waiting
        wanted = self.attempts.herald.look()
        if page[slots.HELP] and count >= self.batch.want:
            self._call_for_help()
        self.attempts.gate.look(waiting)
        if count > 1 or self.ledger.awaits_answer:
            self.lines.hold()
            self._stall.watch()
        elif self.waiting.held or wanted:
            self._stall.watch()
        else:
            self._stall.stalled = False  # what an earlier batch did says nothing about this one
        costs = self.ledger.consumer.costs
        costs.begin()
        run_one = self._run_limited if ledger.passed else self._run_one
        begin, ran = time.monotonic(), 0
        while waiting:
            if page[slots.GENERATION] != self._generation:
                self._look_at_page()
            if self.stopping or 0 < most <= self.done or ledger.doubt or clock_ns() > page[slots.DEADLINE_NS]:
                break
            try:
                held = waiting.popleft()
            except IndexError:  # the stall thread gave it back
                break
            try:
                self.done += run_one(held)
            except TROUBLE:
                raise
            except Exception as error:
                self.attempts.unforeseen(held, error)
            ran += 1
        self._stall.rest()
        costs.end()
        self.slot.words[slots.DONE] = self.done
        self.lines.flush()
        self.batch.ran(ran, time.monotonic() - begin, self._stall.stalled)
        if self.growth is not None:
            self.growth.pass_over()
            self._look_at_memory()
        if waiting:
            self._put_down()

    def _run_limited(self, held: Held) -> bool:
        """Run a message of a batch that limits have let through. When two in a row fail, the rest is put back: it asks
        again after these have been told, so that a circuit which they open holds for it too.
        """
        failed_before = self.attempts.failed
        ran = self._run_one(held)
        if self.attempts.failed == held.number and failed_before == held.number - 1:
            self.ledger.return_waiting()
        return ran

    def _put_down(self) -> None:
        """What is in hand must not be started now: give it back, or wait for the lease and compare."""
        self.waiting.let_go()
        if self._ending():
            self.ledger.return_waiting()
            return
        self._await_lease()

    def _call_for_help(self) -> None:
        """The parent wants to know when a child has its hands full: it may start another one."""
        self.page[slots.HELP] = 0
        self._call_parent()

    # -- the stall thread -------------------------------------------------------------------------------------------

    def _current(self) -> int:
        return int(self.slot.words[slots.CURRENT])

    def _give_back(self) -> None:
        """In the stall thread: settle what is finished, give back all that is not started, also what waits unread."""
        ledger = self.ledger
        with ledger.io:
            if not self._stall.watching:
                return
            self.waiting.let_go()
            if self.page[slots.HELP]:
                self._call_for_help()
            try:
                if ledger.awaits_answer:
                    ledger.receive()
                ledger.return_waiting()
                if ledger.owes or self.attempts.herald.events:
                    ledger.send(0)
                    ledger.receive()
            except TROUBLE as error:
                logger.warning("cannot give back what waits behind a long task: %s", error)
                ledger.doubt = True
            self.lines.flush()

    def _end_threads(self) -> None:
        self._stall.end()
