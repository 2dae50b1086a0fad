"""A job as its caller follows it: which hosts it is for, what each of them has said, and how that is judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from opsq.hosts.order import Answer, Order, Output

State = Literal[
    "waiting", "running", "succeeded", "failed", "timeout", "cancelled", "lost", "refused", "silent", "unknown"
]
#: In the order in which they are told.
FINAL: tuple[State, ...] = (
    "succeeded",
    "failed",
    "timeout",
    "cancelled",
    "lost",
    "refused",
    "silent",
    "unknown",
)
WORDS: Mapping[State, str] = {"timeout": "timed out", "silent": "did not answer", "unknown": "not known here"}
DONE, FAILED, SILENT, REFUSED = 0, 1, 3, 4


@dataclass(frozen=True, slots=True)
class HostResult:
    """One host's part: times in Unix seconds; `clock` is its clock's offset to Redis in seconds."""

    name: str
    state: State = "waiting"
    reason: str = ""
    exit: int | None = None
    signal: int | None = None
    begin: float | None = None
    end: float | None = None
    out: Output | None = None
    err: Output | None = None
    clock: float | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more is to come."""
        return self.state not in ("waiting", "running")

    @property
    def duration(self) -> float | None:
        """Seconds that the command ran."""
        return None if self.begin is None or self.end is None else round(self.end - self.begin, 6)

    def after(self, answer: Answer) -> HostResult:
        """What the host's answer makes of it. The first final answer stays."""
        if self.is_final:
            return self
        if answer.state == "accepted":
            return replace(self, state="running", begin=answer.begin, clock=answer.clock)
        if answer.state == "ended":
            return HostResult(
                self.name,
                _judged(answer),
                answer.reason,
                answer.exit,
                answer.signal,
                answer.begin,
                answer.end,
                answer.out,
                answer.err,
                answer.clock,
            )
        state: State = "lost" if answer.state == "lost" else "refused"
        if answer.state == "refused" and answer.reason == "cancelled":
            state = "cancelled"
        return replace(self, state=state, reason=answer.reason, clock=answer.clock)


def _judged(answer: Answer) -> State:
    if answer.reason == "timeout":
        return "timeout"
    if answer.reason == "cancelled":
        return "cancelled"
    if answer.reason:
        return "lost"
    return "succeeded" if answer.exit == 0 else "failed"


@dataclass(slots=True)
class Job:
    """A job and its hosts. `parts`: the orders as they are sent, each for its targets."""

    id: str
    parts: Sequence[Order]
    results: dict[str, HostResult]
    #: Host -> nonce of its order: an answer to anything else is none.
    nonces: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Sequence[tuple[Order, Iterable[str]]], others: Iterable[HostResult]) -> Job:
        """A job of orders with their hosts; `others` were meant too and get none."""
        nonces = {host: order.nonce for order, hosts in parts for host in hosts}
        results = {host: HostResult(host) for host in nonces}
        results |= {result.name: result for result in others}
        return cls(parts[0][0].job if parts else "", [order for order, _hosts in parts], results, nonces)

    def take(self, answer: Answer) -> bool:
        """Take in an answer whose seal was checked; True when it says something new."""
        before = self.results.get(answer.host)
        if before is None or answer.job != self.id or self.nonces.get(answer.host) != answer.nonce:
            return False
        after = self.results[answer.host] = before.after(answer)
        return after is not before

    def settle(self, names: Iterable[str], state: State, reason: str) -> None:
        """Say what became of hosts that did not say it themselves."""
        for name in names:
            if not self.results[name].is_final:
                self.results[name] = replace(self.results[name], state=state, reason=reason)

    def names(self, *states: State) -> list[str]:
        """The hosts in these states."""
        return [name for name, result in self.results.items() if result.state in states]

    @property
    def is_over(self) -> bool:
        """Whether all is known."""
        return all(result.is_final for result in self.results.values())

    def summary(self) -> dict[str, int]:
        """How many hosts came to what."""
        counts = Counter(result.state for result in self.results.values())
        return {"total": len(self.results), **{state: counts[state] for state in FINAL}}

    def exit_code(self) -> int:
        """0: all succeeded; 1: the work failed somewhere; 4: somebody refused; 3: only silence is to blame."""
        return exit_code(self.summary())


def exit_code(summary: Mapping[str, Any]) -> int:
    """The exit code for such counts."""
    if any(summary[state] for state in ("failed", "timeout", "cancelled", "lost")):
        return FAILED
    if summary["refused"]:
        return REFUSED
    return SILENT if summary["silent"] or summary["unknown"] else DONE
