"""One child's line: take, gate, run, hand back. The only place where the engine and the stores meet.

A message is in the child's in-flight store until the turn that settles it. The next turn is sent before a full batch
runs, so that Redis works while the tasks do. Any trouble with Redis ends in `_recover`: connect anew, settle again what
was not confirmed (which writes nothing twice), and compare what is held with what is known.
"""

from __future__ import annotations

import logging
import resource
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, tzinfo

from opsq import states
from opsq.broker.consumer import Consumer, Leased, Settlement, Turn
from opsq.datastore.connection import TROUBLE
from opsq.exceptions import DecodeError, InvalidTaskError, TaskRevokedError
from opsq.execution.context import Context
from opsq.execution.outcome import Outcome
from opsq.execution.runner import Plan, Runner
from opsq.protocol.envelope import Envelope, parse
from opsq.worker import gate, slots
from opsq.worker.batch import Batch, Held, Stall
from opsq.worker.idle import Waiting
from opsq.worker.lines import Lines
from opsq.worker.settle import Settler
from opsq.worker.slots import Slot, Slots

logger = logging.getLogger("opsq.worker")

#: A settlement whose writes fail this often goes to the dead letters instead.
TRIES = 3
#: How long a child that stops waits for a broker that is away, to write its outcomes (seconds).
STOP_PATIENCE_S = 5.0
#: A time limit beyond this is as good as none.
LONGEST_S = 100 * 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class Ports:
    """What a line needs from outside: `store_started` stores that a task has begun, `call_parent` wakes the parent (a
    time limit begins, or this child is at work).
    """

    store_started: Callable[[Envelope], None]
    call_parent: Callable[[], None]


class Line:
    """The work of one child, from its first turn to its end."""

    def __init__(
        self,
        *,
        table: Slots,
        slot: Slot,
        consumer: Consumer,
        runner: Runner,
        settler: Settler,
        waiting: Waiting,
        lines: Lines,
        ports: Ports,
        prefetch: int = 0,
        most_tasks: int = 0,
        most_memory_kib: int = 0,
        zone: tzinfo = UTC,
    ) -> None:
        """`prefetch`: hard cap of messages in hand, 0 = automatic. `most_tasks`: tasks until this child ends,
        `most_memory_kib`: memory (KiB) beyond which it does; 0 = no limit.
        `zone`: of times that name none.
        """
        self.page, self.slot = table.words, slot
        self.consumer, self.runner, self.settler = consumer, runner, settler
        self.waiting, self.lines, self.ports = waiting, lines, ports
        self.batch = Batch(prefetch)
        self.most_tasks, self.most_memory_kib = most_tasks, most_memory_kib
        self.zone = zone
        self.done = 0
        self.stopping = False
        self.finished: deque[Settlement] = deque()
        self._unconfirmed: deque[list[Settlement]] = deque()
        self._hopeless: dict[int, tuple[Settlement, str]] = {}
        self._book = 0
        self._held = 0
        self._doubt = False
        self._generation = 0
        self._lapses = int(self.page[slots.LAPSES])
        self._io = threading.Lock()
        self._stall = Stall(self._current, self._give_back)
        self._clock_ns = time.monotonic_ns

    def run(self) -> None:
        """Work until told to stop, or until this child has run as many tasks as it may."""
        self._recover("")
        self.slot.words[slots.STATE] = slots.IDLE
        self.ports.call_parent()
        while not self._ending():
            self._look_at_page()
            if self.stopping:
                break
            self.slot.words[slots.STATE] = slots.IDLE
            turn = self._guarded(self._wait_for_work)
            if turn is not None:
                self.slot.words[slots.STATE] = slots.BUSY
                self._take(turn)
                self._guarded(self._work)
                if self.most_memory_kib and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > self.most_memory_kib:
                    logger.info("this child has grown beyond its limit of memory and is replaced")
                    self.stopping = True
        self._finish()

    def _ending(self) -> bool:
        return self.stopping or 0 < self.most_tasks <= self.done

    def _guarded(self, step: Callable[[], Turn | None]) -> Turn | None:
        """A step with Redis; after trouble everything is in order again and the step is to be asked for anew."""
        try:
            return step()
        except TROUBLE as error:
            self._recover(str(error) or type(error).__name__)
            return None

    # -- waiting and taking -----------------------------------------------------------------------------------------

    def _wait_for_work(self) -> Turn | None:
        turn = self.waiting.for_work(self.consumer, self._wanted(), lambda turn: turn.held != self._held)
        if turn is None:
            return None
        if turn.unregistered and not turn.leased:
            self.waiting.pause(0.05)
        self._unconfirmed.append([])
        return turn

    def _wanted(self) -> int:
        if not self.most_tasks:
            return self.batch.want
        return min(self.batch.want, self.most_tasks - self.done)

    def _take(self, turn: Turn) -> None:
        """An answer has come: what it settled is settled, what it leased is in hand."""
        settled = self._unconfirmed.popleft()
        self._held -= len(settled)
        if not self._unconfirmed:
            self.slot.wipe(self._book ^ 1)
        for leased in turn.leased:
            self._add(leased)
        if turn.failed:
            self._held += len(turn.failed)
            self._try_again([settlement for settlement in settled if settlement.number in turn.failed], turn.failed)
        if turn.held != self._held:
            self._doubt = True

    def _add(self, leased: Leased) -> None:
        number = leased.number
        for raw in leased.messages:
            self.batch.waiting.append(Held(number, leased.queue, leased.source, raw))
            number += 1
        self._held += len(leased.messages)

    def _try_again(self, settlements: list[Settlement], errors: dict[int, str]) -> None:
        """Writes that did not go through are tried again, and after that the message goes to the dead letters."""
        for settlement in settlements:
            settlement.tries += 1
            if settlement.tries < TRIES:
                self.finished.append(settlement)
            else:
                self._hopeless[settlement.number] = settlement, errors[settlement.number]
                self._doubt = True

    def _bury(self, holdings: list[dict[int, bytes]]) -> None:
        """Dead letters in place of outcomes that cannot be written."""
        for settlement, error in self._hopeless.values():
            logger.error("the outcome of a task cannot be written, its message goes to the dead letters: %s", error)
            raw = holdings[settlement.queue].get(settlement.number, b"")
            reason = f"its outcome could not be written: {error}"
            list_key = self._list_of(settlement.queue, raw)
            settlement.writes = self.settler.dead_letter(settlement.queue, list_key, raw, reason, None)
            settlement.count = 1
            self.finished.append(settlement)
        self._hopeless.clear()

    # -- working ----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Run what is in hand, and what comes with the turns meanwhile, until nothing is left."""
        while True:
            if self._doubt:
                self._compare()
            waiting = self.batch.waiting
            count = len(waiting)
            if count:
                with self._io:
                    self.slot.words[slots.FIRST] = min(self._first_unsettled(), waiting[0].number)
                    if self._may_run_ahead(count):
                        self._send(self._wanted())
                self._run_batch(count)
            elif not (self.finished or self._unconfirmed):
                return
            with self._io:
                if not self._unconfirmed:
                    self._send(0 if self._ending() else self._wanted())
                self._take(self.consumer.receive())

    def _may_run_ahead(self, count: int) -> bool:
        """Ask for the next batch before this one runs: only for short tasks, and within the caps."""
        room = self.batch.cap - count >= self.batch.want and not self._ending()
        if self.most_tasks:
            room = room and self.most_tasks - self.done - count >= self.batch.want
        return room and count > 1 and count >= self.batch.want and not self._unconfirmed and not self._doubt

    def _first_unsettled(self) -> int:
        numbers = [settlement.number for settlement in self.finished]
        numbers += [settlement.number for sent in self._unconfirmed for settlement in sent]
        return min(numbers, default=2**63)

    def _send(self, want: int) -> None:
        """Send a turn that settles all that is finished. The caller holds `_io`.

        What ends from now on goes into the other notebook; this one is wiped when the turn is answered.
        """
        settlements = []
        self._book ^= 1
        while self.finished:
            settlements.append(self.finished.popleft())
        self._unconfirmed.append(settlements)
        self.settler.store_elsewhere(settlements)
        self.consumer.send(settlements, want)

    def _run_batch(self, count: int) -> None:
        waiting, page, clock_ns = self.batch.waiting, self.page, self._clock_ns
        if count > 1 or self._unconfirmed:
            self.lines.hold()
            self._stall.watch()
        begin, ran = time.monotonic(), 0
        while waiting:
            if page[slots.GENERATION] != self._generation:
                self._look_at_page()
            if self._ending() or self._doubt or clock_ns() > page[slots.DEADLINE_NS]:
                break
            try:
                held = waiting.popleft()
            except IndexError:  # the stall thread gave it back
                break
            try:
                self._run_one(held)
            except TROUBLE:
                raise
            except Exception as error:  # of ours: the next one to take this message must not fall over it too
                self._unforeseen(held, error)
            ran += 1
        self._stall.rest()
        self.lines.flush()
        self.batch.ran(ran, time.monotonic() - begin, self._stall.stalled)
        if waiting:
            self._put_down()

    def _put_down(self) -> None:
        """What is in hand must not be started now: give it back, or wait for the lease and compare."""
        if self._ending():
            self._return_waiting()
            return
        while self._clock_ns() > self.page[slots.DEADLINE_NS] and not self.stopping:
            self.waiting.pause(0.05)
            self._look_at_page()
        self._doubt = True

    def _return_waiting(self) -> None:
        """Everything in hand goes back to the head of its list, the newest first."""
        waiting = self.batch.waiting
        while True:
            try:
                held = waiting.pop()
            except IndexError:
                return
            self.finished.append(self.settler.back(held.queue, held.number, held.source, held.raw))

    # -- one message ------------------------------------------------------------------------------------------------

    def _run_one(self, held: Held) -> None:
        try:
            message = parse(held.raw)
        except DecodeError as error:
            self.finished.append(self._broken(held, error))
            return
        headers = message.headers
        if headers.eta is not None or headers.expires is not None:
            settlement = self._gate(held, message)
            if settlement is not None:
                self.finished.append(settlement)
                return
        plan = self.runner.plan(headers.task)
        now = self._clock_ns()
        soft_ns, hard_ns = _limits(message, plan, now)
        if self.lines.on:
            self.lines.received(message)
        self.slot.begin(held.number, now, soft_ns, hard_ns)
        if (soft_ns or hard_ns) and not self.page[slots.WATCHING]:
            self.page[slots.WATCHING] = 1
            self.ports.call_parent()
        if plan is not None and plan.track_started:
            self.ports.store_started(message)
        outcome = self.runner.run(message)
        self.done += 1
        self.slot.words[slots.DONE] = self.done
        settlement = self.settler.outcome(held.queue, held.number, held.source, message, outcome)
        self.slot.note(self._book, settlement.noted())
        self.finished.append(settlement)
        self.slot.end()
        if self.lines.on:
            self.lines.ended(message, outcome)

    def _unforeseen(self, held: Held, error: Exception) -> None:
        logger.critical("a message of %r goes to the dead letters: it trips opsq itself", held.source, exc_info=error)
        self.slot.end()
        if not any(settlement.number == held.number for settlement in self.finished):
            trouble = DecodeError("cannot run the message", why=repr(error))
            self.finished.append(self.settler.broken(held.queue, held.number, held.source, held.raw, trouble))

    def _broken(self, held: Held, error: DecodeError) -> Settlement:
        """A message that cannot be read: dead, and a FAILURE where its id is known."""
        logger.error("a message of %r goes to the dead letters: %s", held.source, error)
        settlement = self.settler.broken(held.queue, held.number, held.source, held.raw, error)
        task_id = getattr(error, "task_id", None)
        if task_id and self.runner.record is not None:
            record = self.runner.record(Context(id=task_id), states.FAILURE, error, None)
            settlement.writes, settlement.count = (*self.settler.result(task_id, record), *settlement.writes), 2
        return settlement

    def _gate(self, held: Held, message: Envelope) -> Settlement | None:
        try:
            verdict = gate.judge(message, self.zone)
        except InvalidTaskError as error:
            outcome = self.runner.refuse(message, error, str(error))
            return self.settler.outcome(held.queue, held.number, held.source, message, outcome)
        if isinstance(verdict, gate.Later):
            return self.settler.later(held.queue, held.number, message, verdict.due_ms)
        if isinstance(verdict, gate.Never):
            return self._expired(held, message)
        return None

    def _expired(self, held: Held, message: Envelope) -> Settlement:
        logger.info("Discarding revoked task: %s[%s]", message.name, message.headers.id)
        outcome = Outcome(states.REVOKED, TaskRevokedError("expired"))
        if self.runner.record is not None and not message.headers.ignore_result:
            request = Context.of(message, None, self.runner.hostname)
            outcome.record = self.runner.record(request, states.REVOKED, outcome.value, None)
        return self.settler.outcome(held.queue, held.number, held.source, message, outcome)

    def soft_limit_reached(self) -> bool:
        """Whether the parent says that the soft limit of the message that runs has passed, and its code runs now."""
        words = self.slot.words
        return self.runner.inside and words[slots.SOFT_NUMBER] == words[slots.CURRENT] != 0

    # -- the stall thread -------------------------------------------------------------------------------------------

    def _current(self) -> int:
        return int(self.slot.words[slots.CURRENT])

    def _give_back(self) -> None:
        """In the stall thread: settle what is finished, give back all that is not started, also what waits unread."""
        with self._io:
            try:
                if self._unconfirmed:
                    self._take(self.consumer.receive())
                self._return_waiting()
                if self.finished:
                    self._send(0)
                    self._take(self.consumer.receive())
            except TROUBLE as error:
                logger.warning("cannot give back what waits behind a long task: %s", error)
                self._doubt = True
            self.lines.flush()

    # -- trouble ----------------------------------------------------------------------------------------------------

    def _recover(self, reason: str) -> None:
        """Connect anew, for as long as it takes; then settle again what was not confirmed, and compare."""
        delay_s, told, since = 0.05, False, time.monotonic()
        while True:
            try:
                if reason and not told:
                    logger.warning("lost the broker, reconnecting: %s", reason)
                    told = True
                with self._io:
                    self.consumer.connect(track=True)
                    self._settle_again()
                if told:
                    logger.info("the broker is back")
                return
            except TROUBLE as error:
                reason = str(error) or type(error).__name__
                self.waiting.pause(delay_s)
                delay_s = min(delay_s * 2, 1.0)
                self._look_at_page()
                if self.stopping and time.monotonic() - since > (STOP_PATIENCE_S if self._owes() else 0):
                    logger.error("stopping without the broker; what is in flight is settled by whoever comes next")
                    raise SystemExit(1) from None

    def _owes(self) -> bool:
        """Whether outcomes wait to be written."""
        return bool(self.finished or any(self._unconfirmed))

    def _settle_again(self) -> None:
        for sent in reversed(self._unconfirmed):
            self.finished.extendleft(reversed(sent))
        self._unconfirmed.clear()
        if self.finished:
            self._send(0)
            self.consumer.receive()
            self._unconfirmed.clear()
        self._match_holdings()

    def _compare(self) -> None:
        """The count of what is held was not what we know: look at the store. Nothing is on the way meanwhile."""
        with self._io:
            if self._unconfirmed:
                self._take(self.consumer.receive())
            self._match_holdings()

    def _match_holdings(self) -> None:
        """Give back what is held and not known (the answer to its turn was lost), drop what is known and not held."""
        self._doubt = False
        if self._hopeless:
            self._bury(self.consumer.holdings())
        known = {settlement.number for settlement in self.finished}
        known.update(held.number for held in self.batch.waiting)
        current = self._current()
        there = self.consumer.numbers()
        stray = [numbers - known - {current} for numbers in there]
        held = set().union(*there)
        for message in [message for message in self.batch.waiting if message.number not in held]:
            self.batch.waiting.remove(message)
        self._held = self._return_strays(stray) if any(stray) else len(held)
        self.consumer.skip_numbers()

    def _return_strays(self, stray: list[set[int]]) -> int:
        """Give back what is held and not known; returns how many messages are held after that."""
        holdings = self.consumer.holdings()
        settlements = []
        for queue, numbers in enumerate(stray):
            for number in sorted(numbers & holdings[queue].keys(), reverse=True):
                raw = holdings[queue][number]
                settlements.append(self.settler.back(queue, number, self._list_of(queue, raw), raw))
        turn = self.consumer.turn(settlements, 0)
        for number, error in turn.failed.items():
            logger.error("message %s cannot be given back to its queue and stays in flight: %s", number, error)
        return turn.held

    def _list_of(self, queue: int, raw: bytes) -> str:
        """The list a message came from, by its priority."""
        try:
            return self.consumer.list_of(queue, parse(raw).properties.priority or 0)
        except DecodeError:
            return self.consumer.list_of(queue, 0)

    # -- the parent's page ------------------------------------------------------------------------------------------

    def _look_at_page(self) -> None:
        page = self.page
        self._generation = int(page[slots.GENERATION])
        if page[slots.STOPPING] or self.slot.words[slots.LEAVE]:
            self.stopping = True
        if page[slots.LAPSES] != self._lapses:
            self._lapses = int(page[slots.LAPSES])
            self._doubt = True
        self.slot.words[slots.SEEN] = self._generation

    def _finish(self) -> None:
        """Give back what is in hand, settle what is finished, and go."""
        self._return_waiting()
        while self.finished or self._unconfirmed:
            self._guarded(self._settle_rest)
        self._stall.end()
        self.lines.flush()
        self.consumer.close()

    def _settle_rest(self) -> None:
        with self._io:
            if not self._unconfirmed:
                self._send(0)
            self._take(self.consumer.receive())
        self._return_waiting()


def _limits(message: Envelope, plan: Plan | None, now_ns: int) -> tuple[int, int]:
    """The soft and hard limit of this run as points of the monotonic clock (ns), 0 = none."""
    hard, soft = message.headers.timelimit or (None, None)
    if plan is not None:
        hard = hard or plan.time_limit
        soft = soft or plan.soft_time_limit
    return _limit_ns(soft, now_ns), _limit_ns(hard, now_ns)


def _limit_ns(seconds: float | None, now_ns: int) -> int:
    """0 for what is no limit: none, nothing, negative, NaN; what lies beyond a century is kept within 64 bits."""
    return now_ns + int(min(seconds, LONGEST_S) * 1e9) if seconds and seconds > 0 else 0
