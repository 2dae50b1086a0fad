"""Results in Django's database (`result_backend = "django-db"`): the tables of django-celery-results.

A worker writes what a turn settles in one statement, before the message is acknowledged. Whoever asks reads the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from opsq.contrib.django.setup import set_up

set_up()  # a program may ask for results before anything else of Django

from django.utils import timezone  # noqa: E402

from opsq import states  # noqa: E402
from opsq.backends.base import Format  # noqa: E402
from opsq.backends.polled import Polled  # noqa: E402
from opsq.contrib.django import results_tables as tables  # noqa: E402
from opsq.contrib.django.results_awaited import beside  # noqa: E402
from opsq.contrib.django.results_chords import DatabaseChords, Header  # noqa: E402
from opsq.contrib.django.results_models import ChordCounter, GroupResult, TaskResult  # noqa: E402
from opsq.contrib.django.results_rows import WRITTEN, Rows, made  # noqa: E402
from opsq.exceptions import OpsqError  # noqa: E402

#: Rows that are deleted in one statement when they have expired.
AT_ONCE = 5000


class DatabaseBackend(Polled):
    """The results of one app in its Django project's database."""

    expires_itself = False
    beside = staticmethod(beside)

    def __init__(self, app: Any) -> None:
        wanted = Format.of(app.conf)
        self.rows = Rows(wanted)
        self._counters = DatabaseChords.of(app.find_broker().url, wanted, "", app.conf)
        self._counters.rows = self.rows
        super().__init__(app, "django-db", wanted, self._counters)

    # -- writing -------------------------------------------------------------------------------------------------------

    def record(self, request: Any, state: str, value: Any, traceback: str | None = None) -> bytes:
        """The bytes of a row for a run. Raises EncodeError."""
        return self.rows.record(request.id, state, value, traceback, request)

    def store_records(self, records: Iterable[tuple[str, int, bytes]]) -> None:
        """Store what was made by `record`, in one transaction. Raises BrokerError, NotKeptError."""
        rows, headers = [], []
        for key, _ttl_s, data in self._counters.keep(records):
            if key.startswith(Header.PREFIX):
                headers.append(Header.read(data))
            else:
                rows.append(made(self.rows.read(data)))
        with tables.worker_writing(TaskResult) as alias:
            if headers:
                self._counters.begin(headers)
            tables.upsert(alias, rows)

    def store(self, task_id: str, state: str, result: Any, traceback: str | None = None, request: Any = None) -> None:
        """Store a state; a stored success stays, whoever stores what at the same time."""
        row = made(self.rows.columns(task_id, state, result, traceback, request))
        values = {name: getattr(row, name) for name in (*WRITTEN, *(("date_started",) if row.date_started else ()))}
        with tables.writing(TaskResult) as alias:
            kept = TaskResult.objects.using(alias)
            others = kept.filter(task_id=task_id).exclude(status=states.SUCCESS)
            if not others.update(**values, date_done=timezone.now()):
                kept.bulk_create([row], ignore_conflicts=True)

    def forget(self, task_id: str) -> None:
        """Remove a result."""
        with tables.writing(TaskResult) as alias:
            TaskResult.objects.using(alias).filter(task_id=task_id).delete()

    def cleanup(self) -> None:
        """Remove what has expired (`result_expires`, `result_failure_expires`); saved groups as well."""
        failed = {"status": states.FAILURE}
        self._expire(TaskResult, self.ttl_s, TaskResult.objects.exclude(**failed))
        self._expire(TaskResult, self.format.failure_ttl_s, TaskResult.objects.filter(**failed))
        self._expire(GroupResult, self.ttl_s, GroupResult.objects.all())

    @staticmethod
    def _expire(model: Any, ttl_s: int, rows: Any) -> None:
        """Delete old rows, some at a time: nobody else waits for long."""
        if not ttl_s:
            return
        with tables.writing(model) as alias:
            old = rows.using(alias).filter(date_done__lt=timezone.now() - timedelta(seconds=ttl_s)).order_by()
            while keys := list(old.values_list("pk", flat=True)[:AT_ONCE]):
                model.objects.using(alias).filter(pk__in=keys).delete()

    # -- reading -------------------------------------------------------------------------------------------------------

    def get_meta(self, task_id: str) -> dict[str, Any]:
        """What is known of a task; PENDING when nothing is. Raises DecodeError, BrokerError."""
        with tables.reading(TaskResult) as alias:
            row = TaskResult.objects.using(alias).filter(task_id=task_id).first()
        if row is None:
            return {"status": states.PENDING, "result": None, "task_id": task_id}
        return self.rows.meta_of(row)

    def get_metas(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What is known of several tasks, by id; nothing of those of which nothing is known, or that cannot be read."""
        with tables.reading(TaskResult) as alias:
            return dict(self._readable(tables.of_ids(alias, ids)))

    def stored(self, limit: int = 0) -> tuple[list[tuple[str, dict[str, Any]]], bool]:
        """Id and record of results that are stored, the newest first (0 = all), and whether there are more."""
        with tables.reading(TaskResult) as alias:
            rows = TaskResult.objects.using(alias)
            found = list(rows[: limit + 1] if limit else rows.all())
        more = bool(limit) and len(found) > limit
        return list(self._readable(found[:limit] if limit else found)), more

    def _readable(self, rows: Iterable[TaskResult]) -> Iterable[tuple[str, dict[str, Any]]]:
        for row in rows:
            with suppress(OpsqError):
                yield row.task_id, self.rows.meta_of(row)

    def exists(self, task_id: str) -> bool:
        """Whether anything is stored for a task."""
        with tables.reading(TaskResult) as alias:
            return bool(TaskResult.objects.using(alias).filter(task_id=task_id).exists())

    # -- groups and chords ---------------------------------------------------------------------------------------------

    def save_group(self, group_id: str, result: Any) -> None:
        """Store which results a group has."""
        columns = {
            "content_type": self.rows.kind,
            "content_encoding": self.rows.encoding,
            "result": self.rows.content(result.as_tuple()),
        }
        with tables.writing(GroupResult) as alias:
            tables.write_over(alias, [GroupResult(group_id=group_id, **columns)], "group_id", (*columns, "date_done"))

    def restore_group(self, group_id: str) -> Any:
        """Which results a group has, as a tuple; None when that was not stored."""
        with tables.reading(GroupResult) as alias:
            row = GroupResult.objects.using(alias).filter(group_id=group_id).first()
        return None if row is None else self.rows.value_of(row, row.result)

    def delete_group(self, group_id: str) -> None:
        """Remove what is stored of a group."""
        with tables.writing(GroupResult) as alias:
            GroupResult.objects.using(alias).filter(group_id=group_id).delete()

    def begin_chord(self, header: Any) -> None:
        """Write down which parts a chord has; before any of them is sent."""
        self._counters.start(Header.of_group(header))

    def add_to_chord(self, group_id: str, result: Any) -> None:
        """A chord has one part more."""
        with tables.writing(ChordCounter):
            self._counters.add(group_id, result.as_tuple())
