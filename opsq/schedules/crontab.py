"""Crontabs: at these minutes of these hours on these days, in the time of a zone. Days are those in all three fields.

croniter finds the next time on the clock's face; what that means in the two nights in which the clock is put forward
or back is decided here:

- forward: a time that the face skips comes as much later as was skipped, and not twice (as in Celery);
- back: a crontab of certain hours fires in the first of the two equal hours only (as in Celery); one of every hour
  fires in both, because it means "every so many minutes" (Celery leaves the second hour out).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from functools import cached_property
from typing import Any

from croniter import croniter

from opsq.schedules.base import BaseSchedule, schedstate
from opsq.schedules.fields import MONTH_LENGTHS, Field, expanded

_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
_ONE_MICROSECOND = timedelta(microseconds=1)


class crontab(BaseSchedule):
    """Fields as numbers, texts (`"*/15"`, `"mon-fri"`, `"1,13,30-45/5"`) or lists; Sunday is 0, and 7 is nothing."""

    def __init__(
        self,
        minute: Field = "*",
        hour: Field = "*",
        day_of_week: Field = "*",
        day_of_month: Field = "*",
        month_of_year: Field = "*",
        **kwargs: Any,
    ) -> None:
        given = (minute, hour, day_of_week, day_of_month, month_of_year)
        self._given = tuple("*" if field is None else field for field in given)
        #: Packages that keep crontabs elsewhere read the fields by these names.
        self._orig_minute, self._orig_hour, self._orig_day_of_week, *rest = self._given
        self._orig_day_of_month, self._orig_month_of_year = rest
        self._kwargs = kwargs
        self.minute = expanded(self._given[0], 60)
        self.hour = expanded(self._given[1], 24)
        self.day_of_week = expanded(self._given[2], 7)
        self.day_of_month = expanded(self._given[3], 31, 1)
        self.month_of_year = expanded(self._given[4], 12, 1)
        if not any(day <= MONTH_LENGTHS[month - 1] for month in self.month_of_year for day in self.day_of_month):
            raise ValueError(
                f"Invalid crontab: day_of_month {self._given[3]!r} never occurs in month_of_year {self._given[4]!r}."
            )
        super().__init__(**kwargs)

    @classmethod
    def from_string(cls, crontab: str) -> crontab:
        """From the five fields of cron: minute, hour, day of month, month, day of week. Raises ValueError."""
        fields = crontab.split()
        if len(fields) != 5:
            raise ValueError(f"{crontab!r} is no crontab: it has {len(fields)} fields, not 5")
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year)

    @property
    def text(self) -> str:
        """The five fields as cron writes them."""
        minute, hour, day_of_week, day_of_month, month_of_year = map(_as_text, self._given)
        return f"{minute} {hour} {day_of_month} {month_of_year} {day_of_week}"

    @cached_property
    def _every_hour(self) -> bool:
        return len(self.hour) == 24

    @cached_property
    def _expanded(self) -> str:
        return " ".join(",".join(map(str, sorted(getattr(self, name)))) for name in _FIELDS)

    def _face_after(self, face: datetime) -> datetime:
        """The next time on the clock's face (naive)."""
        found: datetime = croniter(self._expanded, face, day_or=False).get_next(datetime)
        return found

    def next_after(self, moment: datetime) -> datetime:
        """The first time after `moment` (aware) at which it is due; UTC."""
        zone = self.tz
        now = moment.astimezone(UTC)
        local = now.astimezone(zone)
        face = self._face_after(local.replace(tzinfo=None, fold=0))
        found = self._moment(face, zone, now)
        while found <= now:
            face = self._face_after(face)
            found = self._moment(face, zone, now)
        if self._every_hour and local.fold == 0 and _is_repeated(local):
            again = self._face_after(_start_of_second_hour(now, zone) - _ONE_MICROSECOND)
            found = min(found, again.replace(tzinfo=zone, fold=1).astimezone(UTC))
        return found

    def _moment(self, face: datetime, zone: tzinfo, now: datetime) -> datetime:
        """What a time on the face means: the first of two; the second if the first is over and every hour is meant."""
        first = face.replace(tzinfo=zone, fold=0).astimezone(UTC)
        if first > now or not self._every_hour:
            return first
        return face.replace(tzinfo=zone, fold=1).astimezone(UTC)

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether it is due, when it last ran then, and in how many seconds to ask again.

        Not if no time at which it was due lies within the setting `beat_cron_starting_deadline` (seconds).
        """
        left_s = self.remaining_estimate(last_run_at).total_seconds()
        if left_s > 0:
            return schedstate(False, left_s)
        due = True
        deadline_s = self.app.conf.beat_cron_starting_deadline
        if deadline_s is not None and left_s < 0:
            since = self.maybe_make_aware(self.now()).astimezone(UTC) - timedelta(seconds=deadline_s)
            due = self.remaining_estimate(since - _ONE_MICROSECOND).total_seconds() <= 0
        return schedstate(due, max(self.remaining_estimate(self.now()).total_seconds(), 0.0))

    def __repr__(self) -> str:
        minute, hour, day_of_week, day_of_month, month_of_year = self._given
        return f"<crontab: {minute} {hour} {day_of_month} {month_of_year} {day_of_week} (m/h/dM/MY/d)>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, crontab):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _FIELDS) and super().__eq__(other)

    __hash__ = object.__hash__

    def __reduce__(self) -> Any:
        return type(self), self._given, self._kwargs

    def __setstate__(self, state: dict[str, Any]) -> None:
        """What `__reduce__` gave besides the fields."""
        super().__init__(**state)
        self._kwargs = dict(state)


def _as_text(field: Field) -> str:
    return str(field) if isinstance(field, int | str) else ",".join(map(str, sorted(field)))


def _is_repeated(local: datetime) -> bool:
    """Whether the clock's face shows this time twice."""
    return local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()


def _start_of_second_hour(first: datetime, zone: tzinfo) -> datetime:
    """What the face shows when the clock has just been put back (naive); `first`: a time (UTC) in the first hour."""
    before, offset = first, first.astimezone(zone).utcoffset()
    after = first + timedelta(hours=3)
    while after - before > _ONE_MICROSECOND:
        middle = before + (after - before) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after.astimezone(zone).replace(tzinfo=None, microsecond=0, fold=0)
