"""Settle what somebody else held: a child that died, a worker of this host that died, a consumer whose lease ran out.

What had been started is known exactly on the same host (slots), and then only that is at risk: it goes back if the task
acknowledges late, else to the dead letters. Of a consumer elsewhere nothing is known: at-most-once wins.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from opsq._state import broker_time
from opsq.broker.consumer import MOST, Consumer, Turn
from opsq.broker.losses import Loss, note
from opsq.broker.settlement import Settlement
from opsq.exceptions import DecodeError, Terminated, TimeLimitExceeded, WorkerLostError
from opsq.execution.runner import Runner
from opsq.protocol.envelope import Envelope, parse
from opsq.runtime import process
from opsq.runtime.process import ProcessId
from opsq.worker import slots
from opsq.worker.settle import Settler, counted
from opsq.worker.slots import Slot, Slots

logger = logging.getLogger("opsq.worker")

#: Messages of each queue that are taken over at once from somebody elsewhere: leases are renewed in between.
AT_ONCE = 1000


def digest(url: str) -> str:
    """Names a broker without telling its URL."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


class Judge:
    """Decides what becomes of messages that somebody held, by what is known of their tasks here."""

    def __init__(self, runner: Runner, make_settler: Callable[[list[str]], Settler], max_deliveries: int = 0) -> None:
        """`max_deliveries`: a message that was started and lost so often is dead; 0 = never."""
        self.runner, self.make_settler, self._most = runner, make_settler, max_deliveries
        #: Told of each task that has ended because it was killed or lost, once that is settled.
        self.on_loss: Callable[[Envelope, BaseException], None] = lambda _message, _error: None
        self._losses: list[tuple[Envelope, BaseException]] = []

    def take(self, runner: Runner, max_deliveries: int) -> None:
        """From now on judge by what this runner knows of tasks."""
        self.runner, self._most = runner, max_deliveries

    def lost(
        self,
        settler: Settler,
        queue: int,
        number: int,
        list_key: str,
        message: Envelope,
        why: str,
        level: int = logging.WARNING,
    ) -> Settlement:
        """A message that had been started, or may have been: back with one delivery more (told at `level`), or dead."""
        plan = self.runner.plan(message.headers.task)
        late = plan is not None and plan.acks_late and plan.task.reject_on_worker_lost is not False
        if not late:
            return self._dead(settler, queue, number, list_key, message, why)
        if 0 < self._most <= message.headers.deliveries + 1:
            reason = f"{why}; it was started {message.headers.deliveries + 1} times"
            return self._dead(settler, queue, number, list_key, message, reason)
        logger.log(level, "Task %s[%s] goes back to its queue: %s", message.name, message.headers.id, why)
        return settler.back(queue, number, list_key, counted(message))

    def killed(
        self, settler: Settler, queue: int, number: int, list_key: str, message: Envelope, limit_s: float
    ) -> Settlement:
        """A task that ran into its hard time limit: a failure like any other, unless such are not acknowledged."""
        logger.error("Hard time limit (%ss) exceeded for %s[%s]", limit_s, message.name, message.headers.id)
        plan = self.runner.plan(message.headers.task)
        if plan is not None and not plan.acks_timeouts:
            return self.lost(settler, queue, number, list_key, message, f"it exceeded its time limit of {limit_s} s")
        error = TimeLimitExceeded(limit_s)
        outcome = self.runner.ended_outside(message, error)
        self._losses.append((message, error))
        return settler.outcome(queue, number, list_key, message, outcome)

    def terminated(
        self, settler: Settler, queue: int, number: int, list_key: str, message: Envelope, signum: int
    ) -> Settlement:
        """A task that was revoked while it ran, and killed: acknowledged in any case."""
        logger.info("Task %s[%s] was terminated (%s)", message.name, message.headers.id, signum)
        self._losses.append((message, Terminated(signum)))
        outcome = self.runner.revoked(message, "terminated")
        return settler.outcome(queue, number, list_key, message, outcome)

    def _dead(
        self, settler: Settler, queue: int, number: int, list_key: str, message: Envelope, why: str
    ) -> Settlement:
        logger.error("Task %s[%s] goes to the dead letters: %s", message.name, message.headers.id, why)
        error = WorkerLostError(why)
        outcome = self.runner.ended_outside(message, error)
        outcome.dead = why
        self._losses.append((message, error))
        return settler.outcome(queue, number, list_key, message, outcome)

    def begin(self) -> None:
        """Somebody's messages are judged from now on."""
        self._losses.clear()

    def tell_losses(self) -> None:
        """They have been settled."""
        while self._losses:
            self.on_loss(*self._losses.pop(0))


def settle_slot(
    judge: Judge,
    consumer: Consumer,
    slot: Slot,
    why: str,
    limit: tuple[int, float] | None = None,
    terminated: tuple[int, int] | None = None,
) -> int:
    """Settle what the child of a slot held; it has ended. Returns how many messages it held.

    What had ended is settled as it had ended (the child wrote it down). `limit`, `terminated`: number and hard limit
    (seconds), or number and signal, of the message for which it was killed.
    """
    ended = {settlement.number: settlement for settlement in map(_settlement, slot.notes())}

    def decide(settler: Settler, queue: int, number: int, list_key: str, message: Envelope) -> Settlement | None:
        if number in ended:
            ended[number].task, ended[number].queue = message.headers.task, queue
            return ended[number]
        if limit is not None and number == limit[0]:
            return judge.killed(settler, queue, number, list_key, message, limit[1])
        if terminated is not None and number == terminated[0]:
            return judge.terminated(settler, queue, number, list_key, message, terminated[1])
        if slot.had_started(number):
            return judge.lost(settler, queue, number, list_key, message, why)
        return None

    return _settle(judge, consumer, decide, consumer.turn_only, why)


def _settlement(note: bytes | int) -> Settlement:
    """What a child has noted; its queue and its task are those of the message."""
    return Settlement(0, note, (), 0, "succeeded") if isinstance(note, int) else Settlement.read(note)


def take_over(judge: Judge, consumer: Consumer, why: str) -> int:
    """Settle what a consumer elsewhere held, whose lease has run out: a part of it, the newest; to be called until
    nothing is left (0). Raises `Alive` when the lease has not run out.
    """

    def decide(settler: Settler, queue: int, number: int, list_key: str, message: Envelope) -> Settlement:
        settlement = judge.lost(settler, queue, number, list_key, message, why, logging.INFO)
        if settlement.word == "dead":
            settler.may_take_back(settlement, consumer.name)
        return settlement

    return _settle(judge, consumer, decide, consumer.take_over, why, AT_ONCE)


Decide = Callable[[Settler, int, int, str, Envelope], Settlement | None]


def _settle(
    judge: Judge,
    consumer: Consumer,
    decide: Decide,
    act: Callable[[list[Settlement]], Turn],
    why: str,
    most: int | None = None,
) -> int:
    settler = judge.make_settler(consumer.queues)
    judge.begin()
    settlements, raws = [], {}
    losses: dict[int, Loss] = {}
    for queue, holding in enumerate(consumer.holdings(most)):
        # The newest first: each goes to the head of its list, so the oldest ends up as the next one out.
        for number, raw in sorted(holding.items(), reverse=True):
            raws[number] = raw
            settlement, message = _one(settler, consumer, decide, queue, number, raw)
            settlements.append(settlement)
            if (loss := _loss(settlement, message, consumer.name, why)) is not None:
                losses[number] = loss
    refused = settler.store_elsewhere(settlements)
    for settlement in settlements:
        if settlement.number in refused:
            number, list_key = settlement.number, consumer.list_of(settlement.queue, 0)
            settler.bury(settlement, list_key, raws[number], refused[number], tell=False)
    passed = consumer.passed()
    for settlement in settlements:
        if settlement.number in passed[settlement.queue]:
            unused = settlement.writes[:1] == ("H",) and settlement.writes[2] == raws[settlement.number]
            settler.hand_in(settlement, consumer.passes[settlement.queue], unused)
    settled: list[Settlement] = []
    for start in range(0, len(settlements), MOST):
        part = settlements[start : start + MOST]
        failed = act(part).failed
        settled += [settlement for settlement in part if settlement.number not in failed]
    for queue, name in enumerate(consumer.queues):
        mine = [settlement.number for settlement in settled if settlement.queue == queue]
        if found := [losses[number] for number in mine if number in losses]:
            note(consumer.url, settler.key_prefix, name, found)
    judge.tell_losses()
    return len(settled)


def _one(
    settler: Settler, consumer: Consumer, decide: Decide, queue: int, number: int, raw: bytes
) -> tuple[Settlement, Envelope | None]:
    try:
        message = parse(raw)
    except DecodeError as error:
        return settler.broken(queue, number, consumer.list_of(queue, 0), raw, error), None
    list_key = consumer.list_of(queue, message.properties.priority or 0)
    return decide(settler, queue, number, list_key, message) or settler.back(queue, number, list_key, raw), message


def _loss(settlement: Settlement, message: Envelope | None, holder: str, why: str) -> Loss | None:
    """What befell a message, for whoever asks; None when it had ended before."""
    fate = "dead" if settlement.word == "dead" else "back" if settlement.writes[:1] == ("H",) else ""
    if message is None or not fate:
        return None
    started = fate == "dead" or settlement.writes[2] != message.raw
    return Loss(message.headers.id, broker_time(), holder, why, started, fate)


def settle_leftovers(folder: Path, url: str, judge: Judge, make_consumer: Callable[[list[str], str], Consumer]) -> int:
    """Settle what workers of this host left behind that have gone (on this broker); returns how many messages.

    Their children are ended first: nothing that still runs is given to anybody else.
    """
    settled = 0
    for path in sorted(folder.glob("*.slots")):
        table = Slots.claim(path)
        if table is None:
            continue
        if not table.counts:
            table.remove()
            continue
        facts = table.facts
        if facts.broker != digest(url):
            table.let_go()
            continue
        _end_children(table.used())
        for slot in table.used():
            consumer = make_consumer(facts.queues, f"{facts.worker}:{slot.index}")
            consumer.connect()
            settled += settle_slot(judge, consumer, slot, "its worker was killed while it ran")
            consumer.retire()
            consumer.close()
        table.remove()
        logger.warning("settled what the worker %s had left behind: %d messages", facts.worker, settled)
    return settled


def _end_children(used: Iterable[Slot]) -> None:
    """SIGKILL the children that the file lists, all of them, then wait for each to end."""
    found = [
        ProcessId(slot.words[slots.PID], slot.words[slots.TICKS], process.boot_id())
        for slot in used
        if slot.words[slots.PID]
    ]
    for child in found:
        process.send_signal(child, 9)
    for child in found:
        if not process.wait_end(child, 30.0):
            raise RuntimeError(f"process {child.pid} of a worker that has gone cannot be ended")
