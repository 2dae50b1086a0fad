"""Reading and writing the tables of results: on whose connection, many rows in one statement, what errors mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import DataError, Error, IntegrityError, connections, models, router

from opsq import states
from opsq.contrib.django.results_models import TaskResult
from opsq.contrib.django.results_rows import WRITTEN
from opsq.datastore.trouble import NotKeptError
from opsq.exceptions import BrokerError

#: Classes of SQLSTATE that say that a row can never be written: what is in it, constraints, limits of the program.
_FOR_EVER = ("22", "23", "54")
#: Most ids that are asked for in one statement.
SLICE = 500


@contextmanager
def reading(model: type[models.Model]) -> Iterator[str]:
    """Alias of the database to read from. Raises BrokerError when it cannot be asked."""
    yield from _guarded(router.db_for_read(model), "read")


@contextmanager
def writing(model: type[models.Model]) -> Iterator[str]:
    """Alias of the database to write to. Raises BrokerError when it takes nothing now, NotKeptError for what it never
    will."""
    yield from _guarded(router.db_for_write(model), "write")


@contextmanager
def worker_writing(model: type[models.Model]) -> Iterator[str]:
    """The same for a worker, between tasks and in threads of its own: connections end as they do around tasks."""
    connection = connections[router.db_for_write(model)]
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()
    try:
        with writing(model) as alias:
            yield alias
    finally:
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


def _guarded(alias: str, act: str) -> Iterator[str]:
    try:
        yield alias
    except (Error, ValueError, TypeError) as error:
        connection = connections[alias]
        if isinstance(error, Error) and not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
        if act == "write" and _is_refusal(error):
            raise NotKeptError(f"the database refuses a row: {_reason(error)}") from error
        hint = "manage.py migrate makes the tables" if "django_celery_results" in str(error) else ""
        raise BrokerError(f"cannot {act} results in the database", why=_reason(error), hint=hint) from error


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, DataError | IntegrityError) or not isinstance(error, Error):
        return True
    return str(getattr(error.__cause__, "sqlstate", None) or "")[:2] in _FOR_EVER


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def upsert(alias: str, rows: Iterable[TaskResult]) -> None:
    """Write rows over what is there of their tasks, in one statement; of one task the last one counts."""
    by_id = {row.task_id: row for row in rows}
    # In one order for everybody: two workers that write the same rows do not wait for each other.
    ordered = [by_id[task_id] for task_id in sorted(by_id)]
    started = [row for row in ordered if row.status == states.STARTED]
    others = [row for row in ordered if row.status != states.STARTED] if started else ordered
    columns = (*WRITTEN, "date_done")
    write_over(alias, others, "task_id", columns)
    write_over(alias, started, "task_id", (*columns, "date_started"))


def write_over(alias: str, rows: Sequence[models.Model], key: str, columns: Iterable[str]) -> None:
    """Write rows of one model, and these columns over what is there under the same key, in one statement: who reads
    first has to give up in SQLite when somebody else writes, who only writes waits."""
    if not rows:
        return
    how: dict[str, Any] = {"update_conflicts": True, "update_fields": columns}
    if connections[alias].features.supports_update_conflicts_with_target:
        how["unique_fields"] = (key,)
    type(rows[0])._default_manager.using(alias).bulk_create(rows, **how)


def of_ids(alias: str, ids: Iterable[str]) -> Iterator[TaskResult]:
    """The rows of tasks, as far as there are any."""
    wanted = list(dict.fromkeys(ids))
    for start in range(0, len(wanted), SLICE):
        yield from TaskResult.objects.using(alias).filter(task_id__in=wanted[start : start + SLICE])


def ended_of(alias: str, ids: Iterable[str]) -> set[str]:
    """Those of the tasks that have ended."""
    wanted, found = list(dict.fromkeys(ids)), set()
    for start in range(0, len(wanted), SLICE):
        some = TaskResult.objects.using(alias).filter(task_id__in=wanted[start : start + SLICE])
        found.update(some.filter(status__in=states.READY_STATES).values_list("task_id", flat=True))
    return found
