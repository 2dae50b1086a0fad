"""Before a message runs: now, later or never. What it says of its own times is judged here, all else by checks.

A batch is looked at as a whole before it runs, so that a check asks its question once for all its messages. While no
check has anything to look at, a batch costs one look at each check's `on`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Protocol

from opsq import _state
from opsq.exceptions import DecodeError, InvalidTaskError
from opsq.protocol.envelope import Envelope, parse
from opsq.utils.time import parse_iso
from opsq.worker.batch import Held


@dataclass(frozen=True, slots=True)
class Later:
    """The message is to run at `due_ms` (Unix ms)."""

    due_ms: int


@dataclass(frozen=True, slots=True)
class Never:
    """The message must not run any more: `why` is for its result (expired, revoked), `detail` ends the log line."""

    why: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The message is not held any more: the check has moved it to where it waits."""


Verdict = Later | Never | Elsewhere


class Check(Protocol):
    """Something that messages are held against before they run."""

    @property
    def on(self) -> bool:
        """Whether it has anything to look at now; asked once a batch."""

    def look(self, messages: Sequence[tuple[Held, Envelope]]) -> Mapping[int, Verdict]:
        """Number -> verdict of those that must not run now. Raises RedisError: the batch is looked at again."""


class Gate:
    """The checks of one child."""

    def __init__(self, zone: tzinfo = UTC, on_arrival: Sequence[Check] = (), on_start: Sequence[Check] = ()) -> None:
        """`zone`: of times that name none. `on_arrival` looks at all, `on_start` at those that would run now."""
        self.zone, self._on_arrival, self._on_start = zone, on_arrival, on_start
        #: Number -> verdict, of messages of this batch that a check has stopped.
        self.stopped: dict[int, Verdict] = {}

    def look(self, waiting: Iterable[Held]) -> None:
        """A batch is about to run."""
        arrival = [check for check in self._on_arrival if check.on]
        start = [check for check in self._on_start if check.on]
        if self.stopped:
            self.stopped = {}
        if arrival or start:
            self._ask(_readable(waiting), arrival, start)

    def _ask(self, messages: list[tuple[Held, Envelope]], arrival: Sequence[Check], start: Sequence[Check]) -> None:
        stopped: dict[int, Verdict] = {}
        for check in arrival:
            stopped.update(check.look([each for each in messages if each[0].number not in stopped]))
        due = [each for each in messages if each[0].number not in stopped and self._is_due(each[1])]
        for check in start:
            stopped.update(check.look([each for each in due if each[0].number not in stopped]))
        self.stopped = stopped

    def _is_due(self, message: Envelope) -> bool:
        try:
            return by_its_times(message, self.zone) is None
        except InvalidTaskError:
            return False

    def judge(self, held: Held, message: Envelope) -> Verdict | None:
        """None = now. Raises InvalidTaskError when the message's times cannot be read."""
        return self.stopped.get(held.number) or by_its_times(message, self.zone)


def by_its_times(message: Envelope, zone: tzinfo) -> Verdict | None:
    """What its ETA and expiry say, by this host's clock; naive times are of `zone`. Raises InvalidTaskError.

    What expires before it is due is looked at again when it expires: whoever waits for it is told then.
    """
    headers = message.headers
    now = _state.broker_time()
    expires = None if headers.expires is None else _point(headers.expires, "expires", zone)
    if expires is not None and expires <= now:
        return Never("expired")
    if headers.eta is not None:
        due = _point(headers.eta, "eta", zone)
        if due > now:
            return Later(int((due if expires is None else min(due, expires)) * 1000) + 1)
    return None


def _readable(waiting: Iterable[Held]) -> list[tuple[Held, Envelope]]:
    """The messages that can be read; what is to become of the others is decided when their turn comes."""
    found = []
    for held in list(waiting):
        try:
            held.message = parse(held.raw)
        except DecodeError:
            continue
        found.append((held, held.message))
    return found


def _point(text: str, field: str, zone: tzinfo) -> float:
    try:
        moment: datetime = parse_iso(text, zone)
    except ValueError:
        raise InvalidTaskError("cannot run the task", why=f"its {field} {text!r} is no ISO-8601 time") from None
    return moment.timestamp()
