"""The beat's entries in Django's database: the tables of django-celery-beat, read, followed and written as it does.

The database says what the entries are, and is told of each run; the fence is Redis, as for all entries (see
`opsq.beat.source`). Nothing here keeps a run from being sent because the database is away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import Error, connections, router, transaction

from opsq.beat.definitions import Definitions
from opsq.beat.source import UNSAVED, Found
from opsq.beat.stores import Record
from opsq.contrib.django import schedules_rows, schedules_time
from opsq.contrib.django.schedules_models import KINDS, PeriodicTask, PeriodicTasks

logger = logging.getLogger("celery.beat")

#: How often the database is asked whether an entry was changed (seconds).
PAUSE_S = 0.5
#: Who saves may tell of it a moment before it is saved: so long after a change the entries are read again (seconds).
SETTLED_S = 5.0
#: `last_run_at` later than what Redis knows by so much was written by another beat (seconds).
ANOTHER_S = 0.001


class Database:
    """Where the beat's entries come from."""

    pause_s = PAUSE_S
    place = "in Django's database"

    def __init__(self, app: Any, own: Definitions) -> None:
        self._app, self._own = app, own
        #: Entries of the code that no row can hold.
        self._rest: Mapping[str, Any] = {}
        self._written = self._away = self._behind = False
        self._seen: Any = None
        self._settled_at = 0.0
        self._said: set[str] = set()
        self._alias = router.db_for_write(PeriodicTask)

    def has_changed(self) -> bool:
        """Whether `last_update` is another one than it was, or was a moment ago; or there is something to make up."""
        try:
            seen = PeriodicTasks.last_change()
        except Error as error:
            self._is_away(error)
            return False
        if seen != self._seen:
            self._seen, self._settled_at = seen, time.monotonic() + SETTLED_S
            return True
        return self._away or self._behind or time.monotonic() < self._settled_at

    def read(self, records: Mapping[str, Record]) -> Found | None:
        """All entries; runs that were not noted are noted first. None when the database cannot be read."""
        try:
            self._seen = PeriodicTasks.last_change()
            if not self._written:
                with transaction.atomic(using=self._alias):
                    self._rest = schedules_rows.write(self._own)
                self._written = True
            # finished one-offs can be many, and nobody waits for them
            rows = PeriodicTask.objects.exclude(enabled=False, one_off=True).select_related(*KINDS)
            found = self._found(rows, records)
        except Error as error:
            self._is_away(error)
            return None
        if self._away:
            logger.warning("beat: the database is back")
        self._away = self._behind = False
        return found

    def note(self, name: str, record: Record) -> bool:
        """Write a run into its row; False when that must be done later."""
        try:
            _write_run(name, record)
        except Error as error:
            self._is_away(error)
            self._behind = True
            return False
        return True

    def _is_away(self, error: Exception) -> None:
        """Say it once; the next question opens a connection of its own."""
        connections[self._alias].close()
        if not self._away:
            logger.error("beat: the schedule's database cannot be used: %s", str(error).strip().partition("\n")[0])
            if "django_celery_beat" in str(error):
                logger.error("beat: its tables are made by `manage.py migrate`, with opsq.contrib.django installed")
        self._away = True

    def _found(self, rows: Iterable[PeriodicTask], records: Mapping[str, Record]) -> Found:
        entries = dict(self._rest)
        since: dict[str, int] = {}
        told: dict[str, dict[str, Any]] = {}
        for row in rows:
            record = records.get(row.name, {})
            if _is_unsaved(row, record):
                _write_run(row.name, record)
                told[row.name] = {UNSAVED: None}
                row.enabled = row.enabled and record.get(UNSAVED) != "done"
            else:
                told[row.name] = _told(row)
                after_ms = schedules_rows.since_ms(row, record.get("last") if record else None, known=bool(record))
                if after_ms is not None:
                    since[row.name] = after_ms
            if row.enabled and schedules_rows.is_over(row):
                PeriodicTask.objects.filter(pk=row.pk).update(enabled=False, total_run_count=_kept(row))
                row.enabled = False
            try:
                entries[row.name] = schedules_rows.entry(self._app, row, self._own.entries.get(row.name))
            except schedules_rows.BAD as error:
                self._say(f"the entry {row.name!r} of the database is left out: {error}")
        return Found(entries, since, told)

    def _say(self, problem: str) -> None:
        if problem not in self._said:
            self._said.add(problem)
            logger.error("beat: %s", problem)


def _is_unsaved(row: PeriodicTask, record: Record) -> bool:
    """Whether Redis knows of a run that the row does not tell: it was not noted, or a form has written over it."""
    last = record.get("last")
    if not last:
        return False
    older = row.last_run_at is not None and schedules_time.run_at(row.last_run_at) < last - ANOTHER_S
    return bool(record.get(UNSAVED)) or older


def _told(row: PeriodicTask) -> dict[str, Any]:
    """What the row knows of an entry's runs."""
    told: dict[str, Any] = {"runs": row.total_run_count}
    if row.last_run_at is not None:
        told["last"] = schedules_time.run_at(row.last_run_at)
    return told


def _kept(row: PeriodicTask) -> int:
    """The count of an entry that is over: that of a one-off begins anew, else it could never be enabled again."""
    return 0 if row.one_off else int(row.total_run_count)


def _write_run(name: str, record: Record) -> None:
    """Note the run that the record tells of; a one-off rests then, its count begins anew."""
    wrote = {"last_run_at": schedules_time.to_run_at(record["last"])} if record.get("last") else {}
    rows = PeriodicTask.objects.filter(name=name)
    if record.get(UNSAVED) == "done":
        rows.update(enabled=False, total_run_count=0, **wrote)
    else:
        rows.filter(one_off=False).update(total_run_count=record.get("runs", 0), **wrote)
        rows.filter(one_off=True).update(**wrote)
