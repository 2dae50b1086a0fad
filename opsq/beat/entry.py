"""One entry of a schedule: what is sent, when, and what becomes of runs that were missed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from opsq.schedules import BaseSchedule, crontab, schedule
from opsq.schedules.base import NEVER

#: A run that is later than this was missed: a beat that takes over for another one comes sooner (seconds).
ON_TIME_S = 20.0
#: How many missed runs are made up at most with `missed = "all"`.
MISSED_LIMIT = 100
#: How often a schedule of the program's own is asked at least (seconds).
ASK_AGAIN_S = 300.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BeatLazyFunc:
    """An argument of an entry that is computed at each run: `"kwargs": {"now": BeatLazyFunc(datetime.now)}`."""

    def __init__(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._func, self._args, self._kwargs = func, args, kwargs

    def __call__(self) -> Any:
        """The value of now."""
        return self._func(*self._args, **self._kwargs)

    delay = __call__


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry that can be understood. `jitter` and `missed_age` in seconds; `source`: "app", "added" or "database".

    `once`: it rests after a run. `starts_ms`, `ends_ms`: it is not due before, and not after (Unix ms).
    """

    name: str
    task: str
    schedule: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    jitter: float = 0.0
    overlap: str = "allow"
    missed: str = "once"
    missed_limit: int = MISSED_LIMIT
    missed_age: float | None = None
    enabled: bool = True
    source: str = "app"
    once: bool = False
    starts_ms: int | None = None
    ends_ms: int | None = None

    @property
    def zone(self) -> str:
        """The name of its time zone."""
        return str(getattr(self.schedule, "tz", None) or "UTC")

    @property
    def is_asked(self) -> bool:
        """Whether its schedule is a class of the program's own that must be asked, each time, whether it is due."""
        kind = type(self.schedule)
        own = (BaseSchedule.is_due, schedule.is_due, crontab.is_due)
        return (
            getattr(kind, "next_after", BaseSchedule.next_after) is BaseSchedule.next_after
            or kind.is_due not in own
            or kind.remaining_estimate is not BaseSchedule.remaining_estimate
        )

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Those of a run now."""

        def value(given: Any) -> Any:
            return given() if isinstance(given, BeatLazyFunc) else given

        return [value(given) for given in self.args], {name: value(given) for name, given in self.kwargs.items()}

    def next_ms(self, served_ms: int) -> int:
        """The first due time after another one (Unix ms)."""
        due_ms = (
            self._first_ms() if self._begins_after(served_ms) else _ms(self.schedule.next_after(_moment(served_ms)))
        )
        if self.ends_ms is not None and due_ms > self.ends_ms:
            return NEVER_MS
        return max(due_ms, served_ms + 1)

    def _begins_after(self, served_ms: int) -> bool:
        return self.starts_ms is not None and served_ms < self.starts_ms

    def _first_ms(self) -> int:
        """The first due time of all: an interval begins with one."""
        start_ms = self.starts_ms or 0
        if isinstance(self.schedule, schedule):
            return start_ms
        return _ms(self.schedule.next_after(_moment(start_ms - 1)))

    def asked_ms(self, served_ms: int, now_ms: int) -> tuple[bool, int]:
        """For a schedule of the program's own: whether it is due now, and when to ask again if not (Unix ms)."""
        due, again_s = self.schedule.is_due(_moment(served_ms))
        pause_s = min(max(float(again_s), 0.001), ASK_AGAIN_S) if isinstance(again_s, int | float) else ASK_AGAIN_S
        return bool(due), now_ms + int(pause_s * 1000)

    def due_between(self, served_ms: int, now_ms: int) -> tuple[list[int], int]:
        """The due times after `served_ms` that have come and are to be served, in order, and the last that has come.

        All in Unix ms; what is left out by `missed` is not among the first.
        """
        found = self._latest(served_ms, now_ms, max(self.missed_limit, 1) if self.missed == "all" else 1)
        last_ms = found[-1] if found else served_ms
        age_s = ON_TIME_S if self.missed == "none" else self.missed_age
        if age_s is not None:
            oldest_ms = now_ms - int(max(age_s, 0.0) * 1000)
            found = [due for due in found if due >= oldest_ms]
        return found, last_ms

    def _latest(self, served_ms: int, now_ms: int, count: int) -> list[int]:
        """The last due times, at most `count`: looked for in a span that is doubled until there are enough."""
        span_ms = 60_000
        while True:
            start_ms = self._due_before(served_ms, now_ms - span_ms)
            found = list(self._until(start_ms, now_ms))
            if len(found) >= count or start_ms == served_ms:
                return found[-count:]
            span_ms *= 2

    def _due_before(self, served_ms: int, start_ms: int) -> int:
        """Where to begin to look: for intervals a multiple of them after `served_ms`."""
        if start_ms <= served_ms:
            return served_ms
        if isinstance(self.schedule, schedule):
            if self.schedule.relative:
                return served_ms if start_ms - served_ms < 1000 * max(self.schedule.seconds * 1000, 1) else start_ms
            every_ms = max(int(self.schedule.seconds * 1000), 1)
            return start_ms - (start_ms - served_ms) % every_ms
        return start_ms

    def _until(self, start_ms: int, end_ms: int) -> Iterator[int]:
        due = self.next_ms(start_ms)
        while due <= end_ms:
            yield due
            due = self.next_ms(due)

    def delay_ms(self, due_ms: int) -> int:
        """How much later than due it is sent (`jitter`): the same for whoever asks, and never beyond the next run."""
        if not self.jitter:
            return 0
        room_ms = min(int(self.jitter * 1000), self.next_ms(due_ms) - due_ms)
        return random.Random(f"{self.name}\0{due_ms}").randrange(max(room_ms, 1))


def _moment(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)


def _ms(moment: datetime) -> int:
    """Unix ms, never earlier than the moment itself."""
    return -((_EPOCH - moment.astimezone(UTC)) // timedelta(milliseconds=1))


#: The due time of what is never due again (Unix ms).
NEVER_MS = _ms(NEVER)
