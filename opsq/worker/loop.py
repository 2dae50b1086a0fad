"""One child's line: take, gate, run, hand back. The only place where the engine and the stores meet.

The next turn is sent before a full batch runs, so that Redis works while the tasks do. Any trouble with Redis ends in
`_recover`, which puts the ledger in order for as long as it takes.
"""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

from redis.exceptions import ResponseError

from opsq.broker.consumer import Turn
from opsq.datastore.connection import TROUBLE
from opsq.datastore.seeking import Replica
from opsq.worker import slots
from opsq.worker.attempt import Attempts
from opsq.worker.batch import Batch, Stall
from opsq.worker.idle import Waiting
from opsq.worker.ledger import Ledger
from opsq.worker.lines import Lines
from opsq.worker.slots import Slot, Slots

logger = logging.getLogger("opsq.worker")

#: How long a child that stops waits for a broker that is away, to write its outcomes (seconds).
STOP_PATIENCE_S = 5.0
#: How long a child waits at most before it asks a server again that has refused its turn (seconds).
REFUSED_MOST_S = 1.0


@dataclass(frozen=True, slots=True)
class Caps:
    """Limits of a child, 0 = none: messages in hand, tasks and memory (KiB) after which it ends."""

    prefetch: int = 0
    tasks: int = 0
    memory_kib: int = 0


class Line:
    """The work of one child, from its first turn to its end."""

    def __init__(
        self,
        table: Slots,
        slot: Slot,
        ledger: Ledger,
        attempts: Attempts,
        waiting: Waiting,
        lines: Lines,
        on_work: Callable[[], None],
        caps: Caps,
    ) -> None:
        """`on_work` is called when it is connected and begins to take messages."""
        self.page, self.slot = table.words, slot
        self.ledger, self.attempts, self.waiting, self.lines = ledger, attempts, waiting, lines
        self.caps, self._on_work = caps, on_work
        self.batch = Batch(caps.prefetch)
        self.done = 0
        self.stopping = False
        self._generation = 0
        self._lapses = int(self.page[slots.LAPSES])
        self._refused_at = self._refused_s = 0.0
        self._stall = Stall(self._current, self._give_back)

    def run(self) -> None:
        """Work until told to stop, or until this child has run as many tasks as it may."""
        self._recover("")
        self.slot.words[slots.STATE] = slots.IDLE
        self._on_work()
        while not self._ending():
            self._look_at_page()
            if self.stopping:
                break
            self.slot.words[slots.STATE] = slots.IDLE
            # After trouble there may be something in hand, and nothing more may ever come.
            has_work = bool(self.ledger.waiting) or not self.ledger.idle
            if not has_work and (turn := self._guarded(self._wait_for_work)) is not None:
                self.ledger.take(turn)
                has_work = True
            if has_work:
                self.slot.words[slots.STATE] = slots.BUSY
                self._guarded(self._work)
                self._look_at_memory()
        self._finish()

    def soft_limit_reached(self) -> bool:
        """Whether the parent says that the soft limit of the message that runs has passed, and its code runs now."""
        words = self.slot.words
        return self.attempts.runner.inside and words[slots.SOFT_NUMBER] == words[slots.CURRENT] != 0

    def _ending(self) -> bool:
        return self.stopping or 0 < self.caps.tasks <= self.done

    def _guarded(self, step: Callable[[], Turn | None]) -> Turn | None:
        """A step with Redis; after trouble everything is in order again and the step is to be asked for anew."""
        try:
            return step()
        except TROUBLE as error:
            self.waiting.let_go()
            if isinstance(error, ResponseError | Replica):
                self._hold_back()
            self._recover(str(error) or type(error).__name__)
            return None

    def _hold_back(self) -> None:
        """A server that answers and refuses is not asked again and again."""
        now = time.monotonic()
        again = now - self._refused_at < 3 * REFUSED_MOST_S
        self._refused_s = min(self._refused_s * 2, REFUSED_MOST_S) if again else REFUSED_MOST_S / 32
        self._refused_at = now
        self.waiting.pause(self._refused_s)

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
        want = self.batch.want
        if count < 2 or count < want or self.batch.cap - count < want or self._ending():
            return False
        if self.caps.tasks and self.caps.tasks - self.done - count < want:
            return False
        return not self.ledger.awaits_answer

    def _run_batch(self, count: int) -> None:
        waiting, page, clock_ns = self.ledger.waiting, self.page, time.monotonic_ns
        wanted = self.attempts.herald.look()
        self.attempts.gate.look(waiting)
        if count > 1 or self.ledger.awaits_answer:
            self.lines.hold()
            self._stall.watch()
        elif self.waiting.held or wanted:
            self._stall.watch()
        else:
            self._stall.stalled = False  # what an earlier batch did says nothing about this one
        begin, ran = time.monotonic(), 0
        while waiting:
            if page[slots.GENERATION] != self._generation:
                self._look_at_page()
            if self._ending() or self.ledger.doubt or clock_ns() > page[slots.DEADLINE_NS]:
                break
            try:
                held = waiting.popleft()
            except IndexError:  # the stall thread gave it back
                break
            try:
                self.done += self.attempts.run(held)
            except TROUBLE:
                raise
            except Exception as error:
                self.attempts.unforeseen(held, error)
            ran += 1
        self._stall.rest()
        self.slot.words[slots.DONE] = self.done
        self.lines.flush()
        self.batch.ran(ran, time.monotonic() - begin, self._stall.stalled)
        if waiting:
            self._put_down()

    def _put_down(self) -> None:
        """What is in hand must not be started now: give it back, or wait for the lease and compare."""
        self.waiting.let_go()
        if self._ending():
            self.ledger.return_waiting()
            return
        while time.monotonic_ns() > self.page[slots.DEADLINE_NS] and not self.stopping:
            self.waiting.pause(0.05)
            self._look_at_page()
        self.ledger.doubt = True

    def _look_at_memory(self) -> None:
        limit = self.caps.memory_kib
        if limit and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > limit:
            logger.info("this child has grown beyond its limit of memory and is replaced")
            self.stopping = True

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

    # -- trouble, orders, the end -----------------------------------------------------------------------------------

    def _recover(self, reason: str) -> None:
        """Connect anew and put the ledger in order, for as long as it takes."""
        delay_s, told, since = 0.05, False, time.monotonic()
        while True:
            try:
                if reason and not told:
                    logger.warning("lost the broker, reconnecting: %s", reason)
                    told = True
                with self.ledger.io:
                    self.ledger.reconnect()
                if told:
                    logger.info("the broker is back")
                return
            except TROUBLE as error:
                reason = str(error) or type(error).__name__
                self.waiting.pause(delay_s)
                delay_s = min(delay_s * 2, 1.0)
                self._look_at_page()
                if self.stopping and time.monotonic() - since > (STOP_PATIENCE_S if self.ledger.owes else 0):
                    logger.error("stopping without the broker; what is in flight is settled by whoever comes next")
                    raise SystemExit(1) from None

    def _look_at_page(self) -> None:
        """What the parent tells: to stop, to leave, that the lease had run out for a while."""
        page = self.page
        self._generation = int(page[slots.GENERATION])
        if page[slots.STOPPING] or self.slot.words[slots.LEAVE]:
            self.stopping = True
        if page[slots.LAPSES] != self._lapses:
            self._lapses = int(page[slots.LAPSES])
            self.ledger.doubt = True
        self.slot.words[slots.SEEN] = self._generation

    def _finish(self) -> None:
        """Give back what is in hand, settle what is finished, and go."""
        self.waiting.let_go()
        self.ledger.return_waiting()
        while not self.ledger.idle:
            self._guarded(self._settle_rest)
        self._stall.end()
        self.lines.flush()
        self._guarded(self._retire)
        self.ledger.consumer.close()

    def _retire(self) -> None:
        """Nothing is held: nobody has to settle anything for this child."""
        self.slot.words[slots.STATE] = slots.LEAVING
        if not self.ledger.consumer.retire():
            raise SystemExit(1)

    def _settle_rest(self) -> None:
        with self.ledger.io:
            if not self.ledger.awaits_answer:
                self.ledger.send(0)
            self.ledger.receive()
        self.ledger.return_waiting()
