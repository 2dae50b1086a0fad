"""Schedules: when a thing that was last done then is to be done next. Intervals, and what all kinds share.

A schedule's own question is `next_after`: pure, from one point in time to the next. Celery's (`is_due`,
`remaining_estimate`) are answered by it and the schedule's clock.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cached_property
from typing import Any, NamedTuple

from opsq import _state
from opsq.utils.time import make_aware

#: The due time of what is never due again.
NEVER = datetime(9999, 1, 1, tzinfo=UTC)


class schedstate(NamedTuple):
    """Whether it is due, and in how many seconds to look again."""

    is_due: bool
    next: float


class BaseSchedule:
    """What all schedules share: their app, its time zone, its clock. `nowfun` returns another clock's datetime."""

    def __init__(self, nowfun: Callable[[], datetime] | None = None, app: Any = None) -> None:
        self.nowfun, self._app = nowfun, app

    @property
    def app(self) -> Any:
        """The app whose time zone counts; the current one, if none was given."""
        return self._app or _state.get_current_app()

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app
        for name in ("tz", "utc_enabled"):
            self.__dict__.pop(name, None)

    @cached_property
    def tz(self) -> tzinfo:
        """The zone in which days and hours are meant."""
        zone: tzinfo = self.app.timezone
        return zone

    @cached_property
    def utc_enabled(self) -> bool:
        """The setting `enable_utc`."""
        return bool(self.app.conf.enable_utc)

    def now(self) -> datetime:
        """What time it is."""
        found: datetime = (self.nowfun or self.app.now)()
        return found

    def maybe_make_aware(self, dt: datetime, naive_as_utc: bool = True) -> datetime:
        """A naive time is one of UTC, or of the schedule's zone."""
        return make_aware(dt, UTC if naive_as_utc else self.tz).astimezone(self.tz)

    def to_local(self, dt: datetime) -> datetime:
        """The time in the machine's zone if `enable_utc` is off."""
        return dt if self.utc_enabled else dt.astimezone()

    def next_after(self, moment: datetime) -> datetime:
        """The first time after `moment` (aware) at which it is due; UTC."""
        raise NotImplementedError

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """How long until it is due, when it last ran then; negative when it is late."""
        return self.next_after(self.maybe_make_aware(last_run_at)) - self.maybe_make_aware(self.now()).astimezone(UTC)

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether it is due, when it last ran then, and in how many seconds to ask again."""
        left_s = self.remaining_estimate(last_run_at).total_seconds()
        if left_s > 0:
            return schedstate(False, left_s)
        return schedstate(True, max(self.remaining_estimate(self.now()).total_seconds(), 0))

    def __eq__(self, other: object) -> bool:
        return other.nowfun == self.nowfun if isinstance(other, BaseSchedule) else NotImplemented

    __hash__ = object.__hash__


class schedule(BaseSchedule):
    """Every so often: `run_every` seconds or a timedelta. `relative`: rounded down to whole days, hours or minutes."""

    def __init__(
        self,
        run_every: float | timedelta | None = None,
        relative: bool = False,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
    ) -> None:
        self.run_every = timedelta(seconds=run_every) if isinstance(run_every, int | float) else run_every
        self.relative = relative
        super().__init__(nowfun, app)

    @property
    def seconds(self) -> float:
        """The interval, never negative."""
        return max(self.run_every.total_seconds(), 0.0) if self.run_every else 0.0

    def next_after(self, moment: datetime) -> datetime:
        """One interval later."""
        every = self.run_every or timedelta()
        plain = moment.astimezone(UTC) + every
        if not self.relative:
            return plain
        if every >= timedelta(days=1):  # by the calendar, so that a day of 23 or 25 hours is one day
            end = moment.astimezone(self.tz).replace(tzinfo=None) + every
            rounded = end.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=self.tz).astimezone(UTC)
        else:
            rounded = self._rounded(plain.astimezone(self.tz), every).astimezone(UTC)
        return rounded if rounded > moment else plain

    @staticmethod
    def _rounded(end: datetime, every: timedelta) -> datetime:
        if every >= timedelta(hours=1):
            return end.replace(minute=0, second=0, microsecond=0)
        if every >= timedelta(minutes=1):
            return end.replace(second=0, microsecond=0)
        return end.replace(microsecond=0)

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether it is due, when it last ran then, and in how many seconds to ask again."""
        left_s = max(self.remaining_estimate(last_run_at).total_seconds(), 0.0)
        if left_s:
            return schedstate(False, left_s)
        if not self.relative:
            return schedstate(True, self.seconds)
        return schedstate(True, max(self.remaining_estimate(self.now()).total_seconds(), 0.0) or self.seconds)

    def __repr__(self) -> str:
        return f"<freq: {self.human_seconds}>"

    @property
    def human_seconds(self) -> str:
        """The interval in Celery's words: `10.00 seconds`, `1.50 hours`, `now`."""
        for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
            if self.seconds >= size:
                count = self.seconds / size
                return f"{count:.2f} {unit}{'s' if count > 1 else ''}"
        return "now"

    def __eq__(self, other: object) -> bool:
        return self.run_every == (other.run_every if isinstance(other, schedule) else other)

    __hash__ = object.__hash__

    def __reduce__(self) -> Any:
        return type(self), (self.run_every, self.relative, self.nowfun)


def maybe_schedule(s: Any, relative: bool = False, app: Any = None) -> Any:
    """A schedule of seconds, of a timedelta, or the schedule itself, made one of this app."""
    if isinstance(s, int | float | timedelta):
        return schedule(s, relative, app=app)
    if s is not None:
        s.app = app
    return s
