"""One message becomes one settlement: read, gate, run. What is wrong with it stays its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic_ns
from typing import Protocol

from opsq import signals, states
from opsq.broker.settlement import Settlement
from opsq.exceptions import DecodeError, InvalidTaskError
from opsq.execution import telling
from opsq.execution.context import Context
from opsq.execution.outcome import ExceptionInfo, Outcome
from opsq.execution.plan import Plan
from opsq.execution.request import Request
from opsq.execution.runner import Runner, traceback_text
from opsq.protocol.envelope import Envelope, parse
from opsq.worker.batch import Held
from opsq.worker.gate import Elsewhere, Gate, Later, Never
from opsq.worker.herald import Herald
from opsq.worker.ledger import Ledger
from opsq.worker.lines import Lines

logger = logging.getLogger("opsq.worker")

#: A time limit beyond this is as good as none (seconds).
LONGEST_S = 100 * 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class Ports:
    """What an attempt needs from outside: `store_started` stores that a task has begun, `limit_begins` is told the
    number and the name of a message that begins and has a time limit, `put_off` says of a message of this queue, whose
    task is not known here, when it is to be looked at again (Unix ms; None: its task is known nowhere).
    """

    store_started: Callable[[Envelope], None]
    limit_begins: Callable[[int, str], None]
    put_off: Callable[[int, Envelope], int | None]


class Desk(Protocol):
    """Where it is written down what runs."""

    def begin(self, number: int, now_ns: int, soft_ns: int, hard_ns: int) -> None:
        """A message begins; limits are points of the monotonic clock, 0 = none."""

    def end(self) -> None:
        """The message that ran has ended."""


class Attempts:
    """Runs messages in hand in the name of one child."""

    def __init__(
        self,
        runner: Runner,
        ledger: Ledger,
        slot: Desk,
        lines: Lines,
        herald: Herald,
        ports: Ports,
        gate: Gate,
    ) -> None:
        self.runner, self.ledger, self.slot, self.gate = runner, ledger, slot, gate
        self.lines, self.herald, self.ports = lines, herald, ports
        self._settler = ledger.settler
        #: The number of the message that did not go well last (-1: none yet).
        self.failed = -1

    def run(self, held: Held) -> bool:
        """Run a message and settle it; false when no task ran (it is broken, too early or too late)."""
        opened = self.open(held)
        if opened is None:
            return False
        message, plan = opened
        self.close(held, message, plan, self.runner.run(message, plan))
        return True

    def open(self, held: Held) -> tuple[Envelope, Plan | None] | None:
        """The message, which begins to run; None when it is settled and does not run."""
        try:
            message = held.message or parse(held.raw)
        except DecodeError as error:
            self.ledger.settle_run(self._broken(held, error))
            return None
        if message.properties.delivery_info.exchange:
            message.lay_in = self._settler.queues[held.queue]
        headers = message.headers
        if headers.eta is not None or headers.expires is not None or self.gate.stopped:
            settlement = self._gate(held, message)
            if settlement is not None:
                self.ledger.settle_run(settlement)
                return None
        plan = self.runner.plan(headers.task)
        if plan is None and (due_ms := self.ports.put_off(held.queue, message)) is not None:
            self.ledger.settle_run(self._settler.later(held.queue, held.number, message, due_ms))
            return None
        now = monotonic_ns()
        soft_ns = hard_ns = 0
        limit = headers.timelimit
        if (limit is not None and (limit[0] or limit[1])) or (plan is not None and plan.limited):
            soft_ns, hard_ns = _limits(message, plan, now)
        if self.lines.info:
            self.lines.received(message)
        if signals.around_runs and plan is not None and signals.task_received.receivers:
            signals.task_received.send(None, request=Request(self.runner.request_of(message, plan)))
        self.slot.begin(held.number, now, soft_ns, hard_ns)
        if soft_ns or hard_ns:
            self.ports.limit_begins(held.number, f"{message.name}[{headers.id}]")
        if self.herald.on:
            self.herald.began(message, plan)
        if plan is not None and plan.track_started and not plan.ignores(headers.ignore_result):
            self.ports.store_started(message)
        return message, plan

    def close(self, held: Held, message: Envelope, plan: Plan | None, outcome: Outcome) -> None:
        """It has run: settle it."""
        if self.herald.on:
            self.herald.ended(message, plan, outcome)
        self.ledger.settle_run(self._settler.outcome(held.queue, held.number, held.source, message, outcome))
        self.slot.end()
        lines = self.lines
        if lines.info or outcome.state != states.SUCCESS or (lines.prints is not None and lines.prints.pending):
            if outcome.state != states.SUCCESS:
                self.failed = held.number
            lines.ended(message, plan, outcome)

    def unforeseen(self, held: Held, error: Exception) -> None:
        """A fault of our own: the next one to take this message must not fall over it too."""
        logger.critical("a message of %r goes to the dead letters: it trips opsq itself", held.source, exc_info=error)
        self.slot.end()
        if not self.ledger.settles(held.number):
            trouble = DecodeError("cannot run the message", why=repr(error))
            self.ledger.settle(self._settler.broken(held.queue, held.number, held.source, held.raw, trouble))
        if signals.task_internal_error.receivers:
            self._tell_internal_error(held, error)

    def _tell_internal_error(self, held: Held, error: Exception) -> None:
        try:
            message = parse(held.raw)
            task = self.runner.tasks.get(message.headers.task)
            request = Context.of(message, task, self.runner.hostname)
            told = {"args": request.args, "kwargs": request.kwargs, "request": request}
        except Exception:  # what trips opsq once may do so again
            logger.exception("nobody can be told of it")
            return
        info = ExceptionInfo(error, traceback_text(error))
        signals.task_internal_error.send(
            task, task_id=request.id, exception=error, traceback=error.__traceback__, einfo=info, **told
        )

    def _broken(self, held: Held, error: DecodeError) -> Settlement:
        """A message that cannot be read: dead unless such are discarded, and a FAILURE where its id is known."""
        discards = self.runner.discards
        fate = "is thrown away" if discards else "goes to the dead letters"
        logger.error("a message of %r %s: %s", held.source, fate, error)
        signals.task_rejected.send(None, message=held.raw, exc=error)
        settlement = self._settler.broken(held.queue, held.number, held.source, held.raw, error)
        if discards:
            settlement.writes, settlement.count, settlement.word = (), 0, "failed"
        task_id = getattr(error, "task_id", None)
        if task_id and self.runner.record is not None:
            record = self.runner.record(Context(id=task_id), states.FAILURE, error, None)
            settlement.writes = (*self._settler.result(task_id, record, True), *settlement.writes)
            settlement.count += 1
        return settlement

    def _gate(self, held: Held, message: Envelope) -> Settlement | None:
        try:
            verdict = self.gate.judge(held, message)
        except InvalidTaskError as error:
            signals.task_rejected.send(None, message=message, exc=error)
            outcome = self.runner.refuse(message, error, str(error))
            return self._settler.outcome(held.queue, held.number, held.source, message, outcome)
        if isinstance(verdict, Later):
            return self._settler.later(held.queue, held.number, message, verdict.due_ms)
        if isinstance(verdict, Never):
            return self._revoked(held, message, verdict)
        if isinstance(verdict, Elsewhere):
            return Settlement(held.queue, held.number)
        return None

    def _revoked(self, held: Held, message: Envelope, never: Never) -> Settlement:
        """A message that was revoked, or has expired."""
        logger.info("Discarding revoked task: %s[%s]%s", message.name, message.headers.id, never.detail)
        expired = never.why == "expired"
        plan = self.runner.plan(message.headers.task)
        request = Context.of(message, plan.task if plan is not None else None, self.runner.hostname)
        outcome = self.runner.revoked(message, never.why)
        if self.herald.on:
            self.herald.ended(message, plan, outcome)
        telling.revoked(plan, request, expired)
        settlement = self._settler.outcome(held.queue, held.number, held.source, message, outcome)
        if expired:
            settlement.word = "expired"
        return settlement


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
