"""A host's place at one broker: its facts, its list of orders, its answers. A thread and, while idle, a connection."""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from opsq.datastore import keys
from opsq.datastore.connection import explain
from opsq.datastore.line import Line
from opsq.datastore.trouble import RedisError
from opsq.datastore.url import masked
from opsq.exceptions import OpsqError
from opsq.hosts.checks import Checks, Refused
from opsq.hosts.facts import load, sealed_facts
from opsq.hosts.lease import Lease
from opsq.hosts.order import LARGEST, Answer, AnswerState, Order, Subject, subject
from opsq.hosts.outbox import Outbox, described
from opsq.hosts.runner import Ended
from opsq.hosts.slots import Slots, Task
from opsq.protocol.signing import HEAD_BYTES, Signer
from opsq.runtime.backoff import delay_s
from opsq.runtime.bell import Bell

logger = logging.getLogger("opsq.agent")

State = Literal["connecting", "serving", "standing by", "refused"]
#: A waiting agent is silent for a third of its lease; an answer that is this much later means that the line is dead.
_LATE_S = 1.0
#: Forged orders that are answered at once; then the agent takes its time.
_PATIENCE = 10
_MOST_PAUSE_S = 1.0
_FORGED_FORGOTTEN_S = 60.0
#: Orders in `taken` that are looked at; an agent never holds as many.
_MOST_TAKEN = 1_000


@dataclass(frozen=True, slots=True)
class Host:
    """What all stations of an agent share."""

    name: str
    key: Signer
    checks: Checks
    slots: Slots
    lease_s: float
    facts: Mapping[str, Any]


class Station:
    """One broker's station; `start` it, `stop` it. It comes back by itself when Redis was away."""

    def __init__(self, host: Host, url: str, lease: Lease, on_change: Callable[[], None]) -> None:
        self.url, self._host, self._lease, self._on_change = url, host, lease, on_change
        self.state: State = "connecting"
        self.error: OpsqError | None = None
        self._outbox = Outbox(url, host.name, host.key)
        self._bell = Bell()
        self._stopping = False
        self._thread = threading.Thread(target=self._live, name="station", daemon=True)
        self._since = time.time()
        self._facts_at = 0.0
        self._clock_off: float | None = None
        self._refusing: dict[str, Any] | None = None
        self._forged, self._forged_at = 0, 0.0
        self._orders, self._taken = keys.host_orders(host.name), keys.host_taken(host.name)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop_taking(self) -> None:
        """Take no more orders; what was taken goes on."""
        self._stopping = True
        self._bell.ring()
        self._thread.join()

    def leave(self, patience_s: float) -> None:
        """Send what is left to say, and say good-bye."""
        if self.state == "serving":
            self._outbox.flush(patience_s)
            line = Line(self.url, reply_s=2.0, protocol=2)
            try:
                self._report_taken(line, "the agent stopped before it was started", "the agent stopped")
                self._outbox.flush(patience_s)
                line.ask(*self._tell_facts(stopped=True))
                self._lease.give_up(line)
            except (RedisError, OSError) as error:
                logger.warning("cannot say good-bye: %s", explain(error, self.url))
            finally:
                line.close()
        self._outbox.close(patience_s)
        self._lease.unlock()
        self._bell.close()

    # -- its life ----------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        failures = 0
        while not self._stopping:
            line = Line(self.url, reply_s=self._silence_s + _LATE_S, protocol=2)
            try:
                line.connect()
                if self._lease.claim(line, self._stand_by):
                    failures = 0
                    self._serve(line)
            except (RedisError, OSError) as error:
                failures += 1
                told = explain(error, self.url)
                logger.log(logging.WARNING if failures == 1 else logging.DEBUG, "%s", told)
                self.error = told
                self._change("connecting")
                self._on_change()
                self._pause(delay_s(failures, first_s=0.1, most_s=5.0))
            except OpsqError as error:
                self.error = error
                self._change("refused")
                return
            finally:
                line.close()

    @property
    def _silence_s(self) -> float:
        return self._host.lease_s / 3

    def _change(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self.error = self.error if state == "refused" else None
            if state != "connecting":
                logger.info("%s is %s at %s", self._host.name, state, masked(self.url))
            self._on_change()

    def _stand_by(self, seconds: float) -> bool:
        self._change("standing by")
        self._pause(seconds)
        return not self._stopping

    def _pause(self, seconds: float) -> None:
        """Wait, unless it is to stop."""
        if not self._stopping:
            select.select([self._bell.reader], [], [], seconds)

    # -- orders ------------------------------------------------------------------------------------------------------

    def _serve(self, line: Line) -> None:
        """Renew and wait for orders, until it is to stop or the place is lost."""
        self._report_taken(line, "its agent went away before it was started", "its agent went away while it ran")
        self._facts_at = 0.0
        while not self._stopping and self._renew(line):
            self._change("serving")
            renew_at = time.monotonic() + self._silence_s
            raw = self._next_order(line)
            while raw is not None and not self._stopping:
                self._receive(line, raw)
                if time.monotonic() >= renew_at:  # a flood of orders must not cost the lease
                    break
                raw = line.ask("LMOVE", self._orders, self._taken, "LEFT", "RIGHT")

    def _renew(self, line: Line) -> bool:
        """Renew the lease, and tell the facts now and then. False when somebody else may have the place."""
        now = time.monotonic()
        renewal = self._lease.renewal()
        if renewal is None:
            return False
        commands: list[tuple[Any, ...]] = [("TIME",), renewal]
        if now >= self._facts_at:
            commands += [self._tell_facts(), ("SADD", keys.HOSTS, self._host.name)]
            self._facts_at = now + self._host.lease_s
        line.send(*commands)
        self._hear_time(line.receive())
        previous, *_others = [line.receive() for _command in commands[1:]]
        if self._lease.renewed(previous, now):
            return True
        self._lease.give_up(line)
        self._pause(self._host.lease_s)
        return False

    def _next_order(self, line: Line) -> bytes | None:
        """The next order, moved into `taken`; None when there is none within a third of the lease."""
        line.send(("BLMOVE", self._orders, self._taken, "LEFT", "RIGHT", self._silence_s))
        if not line.readable(0):
            readable, _, _ = select.select([line.fileno(), self._bell.reader], [], [], self._silence_s + _LATE_S)
            if self._bell.reader in readable:
                return None  # what arrives now lies in `taken`, and is told when the station leaves
        raw: bytes | None = line.receive()
        return raw

    def _receive(self, line: Line, raw: bytes) -> None:
        """Check an order and carry it out, or say why not."""
        line.send(("TIME",), ("EXPIRE", self._taken, keys.HOST_ORDERS_S))
        redis_now = self._hear_time(line.receive())
        line.receive()
        try:
            order = self._host.checks.check(raw, redis_now)
            if order.kind == "cancel":
                self._host.checks.claim(order)
        except Refused as refusal:
            self._refuse(line, raw, refusal)
            return
        self._forged = 0
        self._refusing = None
        if order.kind == "run":
            self._host.slots.submit(Task(order, raw, self))
            return
        logger.info("job %s: cancelled by %s", order.job, _shown(order.by))
        self._host.slots.cancel(order.job)
        line.ask("LREM", self._taken, 1, raw)

    def _refuse(self, line: Line, raw: bytes, refusal: Refused) -> None:
        """Answer with the reason. Forged ones are told once, and slow the agent down instead of flooding it."""
        now = time.monotonic()
        self._forged = self._forged if now - self._forged_at < _FORGED_FORGOTTEN_S else 0
        if refusal.forged:
            self._forged, self._forged_at = self._forged + 1, now
        if not refusal.forged or self._forged == 1:
            logger.warning("refused an order: %s", refusal.reason)
        self._refusing = {"reason": refusal.reason, "at": time.time()}
        self._facts_at = min(self._facts_at, time.monotonic())
        if self._forged > _PATIENCE:
            self._pause(min(_MOST_PAUSE_S, 0.01 * 2 ** min(self._forged - _PATIENCE, 10)))
        if refusal.subject is None:
            line.ask("LREM", self._taken, 1, raw)
        else:
            self._answer(refusal.subject, "refused", raw, reason=refusal.reason)

    def _report_taken(self, line: Line, unstarted: str, started: str) -> None:
        """What lies in `taken` and is not in this agent's hand will never be run: say so."""
        found = line.ask("LRANGE", self._taken, 0, _MOST_TAKEN - 1)
        for raw in found:
            if self._host.slots.holds(raw) or self._outbox.holds(raw):
                continue
            about = subject(raw[HEAD_BYTES:]) if len(raw) <= LARGEST else None
            if about is None:
                line.ask("LREM", self._taken, 1, raw)
                continue
            reason = started if self._host.checks.started_before(about) else unstarted
            logger.warning("job %s is lost: %s", about.job, reason)
            self._answer(about, "lost", raw, reason=reason)
        if len(found) == _MOST_TAKEN:  # somebody else has filled it
            line.ask("DEL", self._taken)

    def _hear_time(self, reply: tuple[bytes, bytes]) -> float:
        """Redis' clock (Unix seconds)."""
        redis_now = int(reply[0]) + int(reply[1]) / 1e6
        self._clock_off = time.time() - redis_now
        return redis_now

    # -- what it says ------------------------------------------------------------------------------------------------

    def _tell_facts(self, stopped: bool = False) -> tuple[Any, ...]:
        slots = self._host.slots
        facts = {
            **self._host.facts,
            "since": self._since,
            "at": time.time(),
            "instance": self._lease.instance,
            "load": load(),
            "slots": slots.count,
            "free": slots.free,
            "clock": None if self._clock_off is None else round(self._clock_off, 3),
            "refusing": self._refusing,
            "stopped": stopped,
        }
        return "SET", keys.host_facts(self._host.name), sealed_facts(self._host.key, facts), "EX", keys.HOST_FACTS_S

    def accepted(self, task: Task) -> None:
        """Its command starts now."""
        logger.info("job %s: %s (by %s)", task.order.job, _shown(task.order.command), _shown(task.order.by))
        self._answer(_subject(task.order), "accepted", None, begin=time.time())

    def refused(self, task: Task, reason: str) -> None:
        """It passed the checks and was not started after all."""
        logger.warning("job %s is not started: %s", task.order.job, reason)
        self._answer(_subject(task.order), "refused", task.raw, reason=reason)

    def ended(self, task: Task, ended: Ended) -> None:
        """Its command has ended."""
        how = f"exit {ended.exit}" if ended.signal is None else f"signal {ended.signal}"
        logger.info("job %s: %s%s", task.order.job, how, f" ({ended.reason})" if ended.reason else "")
        self._answer(
            _subject(task.order),
            "ended",
            task.raw,
            [ended.out, ended.err],
            reason=ended.reason,
            exit=ended.exit,
            signal=ended.signal,
            begin=ended.begin,
            end=ended.end,
            out=described(ended.out, ended.out_bytes),
            err=described(ended.err, ended.err_bytes),
        )

    def _answer(
        self, about: Subject, state: AnswerState, raw: bytes | None, outputs: list[bytes] | None = None, **told: Any
    ) -> None:
        answer = Answer(
            state,
            about.job,
            about.part,
            about.nonce,
            self._host.name,
            self._lease.instance,
            clock=None if self._clock_off is None else round(self._clock_off, 3),
            **told,
        )
        self._outbox.put(answer, outputs or [], raw)


def _shown(text: str) -> str:
    """A text fit for one line of a log."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _subject(order: Order) -> Subject:
    return Subject(order.job, order.part, order.nonce)
