"""A row of the table of periodic tasks becomes an entry of the beat, and an entry of the app's code a row."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import DataError, IntegrityError, router, transaction
from django.utils import timezone

from opsq.beat.definitions import Definitions
from opsq.beat.entry import Entry
from opsq.beat.source import DATABASE
from opsq.contrib.django import schedules_time
from opsq.contrib.django.schedules_models import (
    KINDS,
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    PeriodicTasks,
    SolarSchedule,
)
from opsq.exceptions import OpsqError
from opsq.protocol import jsontypes
from opsq.schedules import ParseException, clocked, crontab, schedule, solar

logger = logging.getLogger("celery.beat")

#: What a row that cannot be understood raises.
BAD = (OpsqError, ParseException, ValueError, TypeError, OverflowError)
#: Options of a task that have columns of their own.
_ROUTE = ("queue", "exchange", "routing_key", "priority")
_COLUMNS = (*_ROUTE, "headers", "expires", "expire_seconds")
#: What texts and numbers of a row may be: databases other than SQLite refuse what is longer or larger.
_LONGEST, _LARGEST = 200, 2**31 - 1
#: Another beat has written `last_run_at` when it is later than ours by so much (seconds).
_ANOTHER_S = 0.001


def entry(app: Any, row: PeriodicTask, own: Entry | None) -> Entry:
    """The entry; what no column holds is taken from the code's entry of this name. Raises BAD."""
    kind = row.scheduler
    if kind is None:
        raise ValueError("it has no schedule")
    found = kind.schedule
    if row.crontab_id is None or not schedules_time.aware():
        found.app = app
    if isinstance(found, schedule) and not found.seconds >= 0.001:
        raise ValueError("its interval is shorter than a millisecond")
    made = Entry(
        name=row.name,
        task=row.task,
        schedule=found,
        args=tuple(_json(row, "args", list)),
        kwargs=_json(row, "kwargs", dict),
        options=_options(row),
        missed_age=app.conf.beat_cron_starting_deadline if isinstance(found, crontab) else None,
        enabled=bool(row.enabled),
        source=DATABASE,
        once=bool(row.one_off),
        starts_ms=_ms(row.start_time),
        ends_ms=_ms(row.expires),
    )
    if own is None:
        return made
    more = {key: value for key, value in own.options.items() if key not in _COLUMNS}
    return replace(
        made,
        options={**more, **made.options},
        jitter=own.jitter,
        overlap=own.overlap,
        missed=own.missed,
        missed_limit=own.missed_limit,
        missed_age=own.missed_age,
    )


def _json(row: PeriodicTask, column: str, kind: type) -> Any:
    text = getattr(row, column)
    try:
        value = jsontypes.loads(text) if text else kind()
    except ValueError as error:
        raise ValueError(f"its {column} are no JSON: {error}") from None
    if not isinstance(value, kind):
        raise TypeError(f"its {column} are no {'list' if kind is list else 'object'}")
    return value


def _options(row: PeriodicTask) -> dict[str, Any]:
    """What `apply_async` is given."""
    options = {name: getattr(row, name) for name in _ROUTE if getattr(row, name) not in (None, "")}
    if row.expires is not None:
        options["expires"] = schedules_time.meant(row.expires)
    elif row.expire_seconds:
        options["expires"] = row.expire_seconds
    headers = _json(row, "headers", dict)
    return {**options, "headers": headers} if headers else options


def _ms(value: datetime | None) -> int | None:
    return None if value is None else int(schedules_time.meant(value).timestamp() * 1000)


def is_over(row: PeriodicTask) -> bool:
    """Whether an enabled entry will never run again: it has expired, or was a one-off and has run with Celery."""
    if row.expires is not None and schedules_time.meant(row.expires) <= datetime.now(UTC):
        return True
    return bool(row.one_off and row.total_run_count > 0)


def since_ms(row: PeriodicTask, last: float | None, *, known: bool) -> int | None:
    """From where an entry counts if not from what Redis knows (Unix ms): its last run by another beat, or its making.

    `last`: when Redis has it run last (Unix seconds); `known`: Redis has a record of it.
    """
    if row.last_run_at is not None and row.clocked_id is None:
        ran = schedules_time.run_at(row.last_run_at)
        return int(ran * 1000) if not known or last is None or ran > last + _ANOTHER_S else None
    if known:
        return None
    made_ms = _ms(row.date_changed or timezone.now()) or 0
    first = row.start_time if row.clocked_id is None else row.clocked.clocked_time
    return made_ms if first is None else min(made_ms, (_ms(first) or 0) - 1)


# -- from the code into the table --------------------------------------------------------------------------------------


def write(own: Definitions) -> dict[str, Entry]:
    """Write the code's entries as rows, as Celery does at each start; those that no row can hold."""
    rest = {}
    changed = False
    alias = router.db_for_write(PeriodicTask)
    for name, each in own.entries.items():
        try:
            with transaction.atomic(using=alias):  # what the database refuses of one entry costs no other its row
                changed = _write(each, _columns(each)) or changed
        except (*BAD, DataError, IntegrityError) as error:
            logger.warning("beat: the entry %r does not fit into its row: %s", name, str(error).partition("\n")[0])
            rest[name] = each
    if changed:
        PeriodicTasks.update_changed()
    return rest


def _write(each: Entry, wanted: Mapping[str, Any]) -> bool:
    """Whether the row was made or changed; who enables and disables it is the admin."""
    row = PeriodicTask.objects.filter(name=each.name).first()
    if row is None:
        PeriodicTask.objects.create(name=each.name, enabled=each.enabled, **wanted)
        return True
    different = {key: value for key, value in wanted.items() if getattr(row, key) != value}
    if different:
        PeriodicTask.objects.filter(pk=row.pk).update(**different, date_changed=timezone.now())
    return bool(different)


def _columns(each: Entry) -> dict[str, Any]:
    """The row of an entry. Raises BAD when no row can hold it."""
    texts = (each.name, each.task, *(str(each.options.get(name) or "") for name in _ROUTE))
    if any(len(text) > _LONGEST for text in texts):
        raise ValueError("a name is too long")
    args, kwargs = jsontypes.dumps(list(each.args)).decode(), jsontypes.dumps(dict(each.kwargs)).decode()
    headers = jsontypes.dumps(dict(each.options.get("headers") or {})).decode()
    column, model, values = _kind(each.schedule)
    row = model.objects.filter(**values).first() or model.objects.create(**values)
    wanted = {f"{kind}_id": None for kind in KINDS} | {f"{column}_id": row.pk}
    wanted |= {name: each.options.get(name) for name in _ROUTE}
    wanted |= {"task": each.task, "args": args, "kwargs": kwargs, "headers": headers}
    expires = each.options.get("expire_seconds", each.options.get("expires"))
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else expires
    until = schedules_time.to_meant(seconds) if isinstance(seconds, datetime) else None
    return wanted | {"expires": until, "expire_seconds": None if until or seconds is None else int(seconds)}


def _kind(found: Any) -> tuple[str, Any, dict[str, Any]]:
    """Column, model and fields of a schedule."""
    if type(found) is crontab:
        minute, hour, day_of_month, month_of_year, day_of_week = found.text.split()
        days = {"day_of_week": day_of_week, "day_of_month": day_of_month, "month_of_year": month_of_year}
        return "crontab", CrontabSchedule, {"minute": minute, "hour": hour, **days, "timezone": str(found.tz)}
    if type(found) is schedule and not found.relative:
        whole = found.seconds == int(found.seconds)
        every, period = (int(found.seconds), "seconds") if whole else (round(found.seconds * 1e6), "microseconds")
        if every > _LARGEST:
            raise ValueError("its interval is too long")
        return "interval", IntervalSchedule, {"every": every, "period": period}
    if type(found) is solar:
        place = {"latitude": round(found.lat, 6), "longitude": round(found.lon, 6)}
        return "solar", SolarSchedule, {"event": found.event, **place}
    if type(found) is clocked:
        return "clocked", ClockedSchedule, {"clocked_time": schedules_time.to_meant(found.clocked_time)}
    raise ValueError("no row holds such a schedule")
