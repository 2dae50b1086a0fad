"""Chords whose results are in the database: counted there, as django-celery-results does, whoever runs the parts.

The counter says how many parts have not ended. Celery counts down without looking, so a part that runs twice counts
twice; when it comes to 0 here, the rows of all parts say whether they have ended, and the count is put right. A chord
that is complete is then handed to Redis, where its body is sent once, and by somebody else if its sender dies. Redis
also knows when one was heard of last: its body fails when its results expire, if parts never come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from django.db import transaction
from django.db.models import F, IntegerField
from django.db.models.functions import Greatest

from opsq import states
from opsq.backends.chords import LOOK_AGAIN_S, Chords, Facts
from opsq.broker import gathering
from opsq.contrib.django import results_tables as tables
from opsq.contrib.django.results_models import ChordCounter, TaskResult
from opsq.contrib.django.results_rows import Rows, made
from opsq.datastore.connection import client, errors
from opsq.datastore.server_time import in_ms
from opsq.exceptions import ChordError
from opsq.protocol import jsontypes

#: Places in the arguments that count a part (`Chords.part`).
_KEY, _PART, _MEMBER, _WATCHED, _OURS, _GROUP, _FACTS = 0, 1, 3, 9, 10, 11, 12


@dataclass(frozen=True, slots=True)
class Header:
    """The results of a chord's parts, as tuples."""

    group_id: str
    results: list[Any]

    #: Of records that are headers.
    PREFIX: ClassVar[str] = "chord-unlock-"

    @classmethod
    def of_group(cls, group: Any) -> Header:
        """Those of a group of results."""
        return cls(group.id, [result.as_tuple() for result in group.results])

    @classmethod
    def read(cls, data: bytes) -> Header:
        """From a record."""
        return cls(*msgspec.json.decode(data))

    def record(self) -> tuple[str, int, bytes]:
        """As a record among those of the turn that sends the chord."""
        return f"{self.PREFIX}{self.group_id}", 0, msgspec.json.encode((self.group_id, self.results))

    def row(self) -> ChordCounter:
        """Its row, not saved."""
        count = len(list(_leaves(self.results)))
        return ChordCounter(group_id=self.group_id, sub_tasks=jsontypes.dumps(self.results).decode(), count=count)


def _leaves(results: Iterable[Any]) -> Iterator[str]:
    """The ids of tasks among results as tuples, those in groups as well, in order."""
    for (own_id, _parent), nodes in results:
        if nodes is None:
            yield own_id
        else:
            yield from _leaves(nodes)


class DatabaseChords(Chords):
    """The chords of one app in its Django project's database; their bodies are sent by what is in Redis."""

    rows: Rows

    # -- the sender ----------------------------------------------------------------------------------------------------

    def start(self, header: Header) -> None:
        """Write down a header, at once or with the turn that sends its parts."""
        held = gathering.current()
        if held is not None and held.records is not None:
            held.records.append(header.record())
            return
        self.begin([header])

    def set_size(self, group_id: str, size: int, body: Mapping[str, Any]) -> None:
        """The header says it already; what Redis knows of it ends it when its parts never come, if results expire."""
        if self.ttl_s:
            super().set_size(group_id, size, body)

    def begin(self, headers: Sequence[Header]) -> None:
        """Write down headers; those that are there stay: the same chord may be sent twice."""
        with tables.writing(ChordCounter) as alias:
            rows = [header.row() for header in headers]
            ChordCounter.objects.using(alias).bulk_create(rows, ignore_conflicts=True)

    def add(self, group_id: str, result: Any) -> None:
        """One part more than was said."""
        with tables.writing(ChordCounter) as alias, transaction.atomic(using=alias):
            kept = ChordCounter.objects.using(alias).filter(group_id=group_id)
            if kept.update(count=F("count") + 1):
                results = jsontypes.loads(kept.get().sub_tasks)
                kept.update(sub_tasks=jsontypes.dumps([*results, result]).decode())

    # -- the parts -----------------------------------------------------------------------------------------------------

    def count(self, parts: Sequence[Sequence[Any]]) -> list[str]:
        """Count parts; the names of those chords that are complete now and whose body is ours to send."""
        by_group: dict[str, list[Sequence[Any]]] = {}
        for part in parts:
            by_group.setdefault(part[_GROUP], []).append(part)
        with tables.worker_writing(ChordCounter) as alias:
            self._store_ended(alias, parts)
            with transaction.atomic(using=alias):
                last = {
                    group_id: self._is_last(alias, group_id, len({part[_PART] for part in by_group[group_id]}))
                    for group_id in sorted(by_group)
                }
        found: list[str] = []
        for group_id, complete in last.items():
            if complete:
                found += self._hand_over(by_group[group_id][-1])
        self._heard_of([by_group[group_id][-1] for group_id, complete in last.items() if complete is False])
        return found

    def _store_ended(self, alias: str, parts: Sequence[Sequence[Any]]) -> None:
        """The values of a chord are those of the table: also of parts whose results nobody else wants."""
        by_id = {part[_PART].rpartition(":")[0]: part for part in parts}
        rows = []
        for task_id in by_id.keys() - tables.ended_of(alias, by_id):
            _, _, state, value = self.format.decode_plain(by_id[task_id][_MEMBER])
            rows.append(made(self.rows.columns(task_id, state, value, None, None)))
        tables.upsert(alias, rows)

    @staticmethod
    def _is_last(alias: str, group_id: str, count: int) -> bool | None:
        """Count parts of one chord that have ended; whether all have, None where nobody knows it. Writes first: who
        reads then reads alone."""
        kept = ChordCounter.objects.using(alias).filter(group_id=group_id)
        left = Greatest(F("count") - count, 0, output_field=IntegerField())
        if not kept.update(count=left):
            return None  # nobody knows it, or a Celery worker has sent its body
        row = kept.get()
        if row.count:
            return False
        ids = set(_leaves(jsontypes.loads(row.sub_tasks)))
        if open_ones := len(ids - tables.ended_of(alias, ids)):
            kept.update(count=open_ones)
        return not open_ones

    def _hand_over(self, part: Sequence[Any]) -> list[str]:
        """Have Redis count a complete chord as one whose only part this is."""
        with errors(self.url):
            client(self.url).set(f"{part[_KEY]}.s", 1, ex=self.ttl_s or None)
            found = super().count([part])
            if not found and client(self.url).get(f"{part[_KEY]}.c") == b"done":
                self._remove(part[_GROUP])
        return found

    def _heard_of(self, parts: Sequence[Sequence[Any]]) -> None:
        """Chords wait for other parts: from now on as long as results are kept."""
        if not parts or not self.ttl_s:
            return
        with errors(self.url):
            now_ms = in_ms(client(self.url).time())
            pipe = client(self.url).pipeline(transaction=True)
            for part in parts:
                size, ours = f"{part[_KEY]}.s", part[_OURS]
                pipe.set(size, 1, nx=True)  # to whoever looks it is not complete
                pipe.hset(ours, "at", str(now_ms))
                if part[_FACTS]:
                    pipe.hset(ours, "facts", part[_FACTS])
                pipe.zadd(part[_WATCHED], {part[_GROUP]: now_ms + LOOK_AGAIN_S * 1000})
                for key in (size, ours):
                    pipe.expire(key, self.ttl_s)
            pipe.execute()

    # -- the body ------------------------------------------------------------------------------------------------------

    def facts(self, group_id: str) -> Facts | None:
        """What is known of a chord; None when nothing is, or it was done."""
        return super().facts(group_id) if self._row(group_id) is not None else None

    def restore(self, group_id: str) -> Any:
        """The results of a chord's header, in its shape."""
        row = self._row(group_id)
        return None if row is None else ((group_id, None), jsontypes.loads(row.sub_tasks))

    def values(self, group_id: str) -> list[tuple[str, Any]]:
        """Id and value of all parts, in order. Raises ChordError when one has failed."""
        row = self._row(group_id)
        ids = [] if row is None else list(_leaves(jsontypes.loads(row.sub_tasks)))
        with tables.worker_writing(TaskResult) as alias:
            found = {each.task_id: self.rows.meta_of(each) for each in tables.of_ids(alias, ids)}
        for task_id in ids:
            meta = found.get(task_id, {"status": states.PENDING})
            if meta["status"] in states.PROPAGATE_STATES:
                value = meta["result"]
                cause = value if isinstance(value, BaseException) else None
                raise ChordError(f"Dependency {task_id} raised {value!r}") from cause
        return [(task_id, found[task_id]["result"]) for task_id in ids if task_id in found]

    def counted(self, group_id: str) -> tuple[int, str]:
        """How many parts have ended, and of how many."""
        row = self._row(group_id)
        ids = set() if row is None else set(_leaves(jsontypes.loads(row.sub_tasks)))
        with tables.worker_writing(TaskResult) as alias:
            return len(tables.ended_of(alias, ids)), str(len(ids))

    def done(self, group_id: str) -> bool:
        """Its body was sent: forget it. False when it is not ours any more."""
        ours = super().done(group_id)
        if ours:
            self._remove(group_id)
        return ours

    @staticmethod
    def _row(group_id: str) -> ChordCounter | None:
        with tables.worker_writing(ChordCounter) as alias:
            found: ChordCounter | None = ChordCounter.objects.using(alias).filter(group_id=group_id).first()
            return found

    @staticmethod
    def _remove(group_id: str) -> None:
        with tables.worker_writing(ChordCounter) as alias:
            ChordCounter.objects.using(alias).filter(group_id=group_id).delete()
