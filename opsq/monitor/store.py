"""The history: the latest tasks as their events told them, in Redis, with a cap by number and age.

The collector writes it; the page, the JSON, and `opsq tasks` and `opsq results` read it. Tasks that failed, were
retried or were thrown away have a cap of their own, so that successes do not push them out. Counts are kept elsewhere
(`broker/stats.py`): the history may be a sample, counts never are.
"""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from opsq.broker.broker import Broker
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.datastore.scripts import Script
from opsq.exceptions import DecodeError
from opsq.monitor import record as records
from opsq.monitor.record import Record

TRIM = Script(Path(__file__).with_name("lua") / "trim.lua")
#: Records that one round trip reads.
_AT_ONCE = 500
#: Records that one call of the script takes out at most; the server answers others in between.
_TRIM_AT_ONCE = 1_000
_MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tasks are looked for; what is empty does not matter.

    `name` and `worker`: a part of it, or a pattern with `*`; `queue`: the name, or a pattern; `since`: Unix seconds;
    `grep`: words that stand in id, name, arguments, result or error, in upper or lower case.
    """

    name: str = ""
    states: frozenset[str] = frozenset()
    queue: str = ""
    worker: str = ""
    since: float = 0.0
    grep: str = ""

    def fits(self, record: Record) -> bool:
        """Whether a record is one of them."""
        return (
            (not self.states or record.state in self.states)
            and record.updated >= self.since
            and _matches(record.name, self.name, whole=False)
            and _matches(record.queue, self.queue, whole=True)
            and _matches(record.worker, self.worker, whole=False)
            and (not self.grep or self.grep.lower() in record.text.lower())
        )


def _matches(text: str, pattern: str, whole: bool) -> bool:
    if not pattern:
        return True
    if "*" in pattern:
        return fnmatchcase(text.lower(), pattern.lower())
    return text == pattern if whole else pattern.lower() in text.lower()


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, latest change first; `older`: where the next page begins, None if there is none."""

    records: list[Record]
    older: str | None


@dataclass(frozen=True, slots=True)
class History:
    """The history of one broker. `cap`: most tasks of either kind; `age_s`: how long they are kept (seconds)."""

    broker: Broker
    cap: int = keys.HISTORY_CAP
    age_s: float = keys.HISTORY_AGE_S

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, changed: Sequence[Record], skipped: int = 0, now: float | None = None) -> None:
        """Store records as they are now, in one round trip; `skipped`: tasks that were seen and not kept."""
        pipe = self.broker.client.pipeline(transaction=True)
        for record in changed:
            trouble = record.state in records.TROUBLE
            mine, other = (keys.HISTORY_TROUBLE, keys.HISTORY_INDEX)[:: 1 if trouble else -1]
            pipe.hset(self._key(keys.HISTORY), record.id, records.encode(record))
            pipe.zadd(self._key(mine), {record.id: record.updated})
            pipe.zrem(self._key(other), record.id)
            if record.root_id and record.root_id != record.id:
                chain = self._key(keys.history_chain(record.root_id))
                pipe.zadd(chain, {record.id: record.received or record.updated})
                pipe.zremrangebyrank(chain, 0, -keys.HISTORY_CHAIN_CAP - 1)
                pipe.expire(chain, int(self.age_s))
        for key in (keys.HISTORY, keys.HISTORY_INDEX, keys.HISTORY_TROUBLE) if changed else ():
            pipe.expire(self._key(key), int(self.age_s))  # where no monitor runs any more it ends by itself
        if skipped:
            minute = int((time.time() if now is None else now) // _MINUTE_S)
            pipe.hincrby(self._key(keys.HISTORY_SKIPPED), str(minute), skipped)
            pipe.expire(self._key(keys.HISTORY_SKIPPED), keys.HISTORY_SKIPPED_TTL_S)
        with errors(self.broker.url):
            pipe.execute()

    def trim(self) -> None:
        """Take out what is beyond the cap by number or age."""
        with errors(self.broker.url):
            for index in (keys.HISTORY_INDEX, keys.HISTORY_TROUBLE):
                gone: Any = _TRIM_AT_ONCE
                while gone == _TRIM_AT_ONCE:
                    gone = TRIM.run(
                        self.broker.client,
                        [self._key(keys.HISTORY), self._key(index)],
                        [self.cap, time.time() - self.age_s, _TRIM_AT_ONCE],
                    )
            self._forget_old_minutes()

    def _forget_old_minutes(self) -> None:
        counts: Any = self.broker.client.hkeys(self._key(keys.HISTORY_SKIPPED))
        oldest = time.time() // _MINUTE_S - keys.HISTORY_SKIPPED_TTL_S // _MINUTE_S
        if old := [minute for minute in counts if int(minute) < oldest]:
            self.broker.client.hdel(self._key(keys.HISTORY_SKIPPED), *old)

    # -- reading -------------------------------------------------------------------------------------------------------

    def get(self, ids: Sequence[str]) -> dict[str, Record]:
        """The records of these tasks, as far as they are kept."""
        if not ids:
            return {}
        with errors(self.broker.url):
            found: Any = self.broker.client.hmget(self._key(keys.HISTORY), list(ids))
        read = (_read(data) for data in found if data is not None)
        return {record.id: record for record in read if record is not None}

    def find(self, wanted: Wanted, limit: int = 0, before: str = "") -> Page:
        """Tasks that fit, latest change first (0 = all); `before`: the `older` of the page before this one."""
        fitting = (record for record in self._all(wanted, _cursor(before)) if wanted.fits(record))
        if not limit:
            return Page(list(fitting), None)
        found = list(islice(fitting, limit + 1))
        shown = found[:limit]
        return Page(shown, f"{shown[-1].updated!r}:{shown[-1].id}" if len(found) > limit else None)

    def chain(self, root_id: str) -> list[Record]:
        """What was sent by a task and by those that it sent, itself first."""
        with errors(self.broker.url):
            members: Any = self.broker.client.zrange(self._key(keys.history_chain(root_id)), 0, -1)
        ids = [root_id, *(member.decode(errors="replace") for member in members)]
        found = self.get(list(dict.fromkeys(ids)))
        return [found[each] for each in dict.fromkeys(ids) if each in found]

    def size(self) -> int:
        """How many tasks are kept."""
        with errors(self.broker.url):
            count: Any = self.broker.client.hlen(self._key(keys.HISTORY))
        return int(count)

    def skipped(self, minutes: int = keys.HISTORY_SKIPPED_TTL_S // _MINUTE_S) -> int:
        """How many tasks of the latest minutes were counted, but not kept."""
        with errors(self.broker.url):
            counts: Any = self.broker.client.hgetall(self._key(keys.HISTORY_SKIPPED))
        oldest = time.time() // _MINUTE_S - minutes
        return sum(int(count) for minute, count in counts.items() if int(minute) > oldest)

    # -- samples of the queues -----------------------------------------------------------------------------------------

    def add_sample(self, sample: dict[str, Any]) -> None:
        """Note how the queues stand now; the oldest note goes."""
        pipe = self.broker.client.pipeline(transaction=True)
        pipe.lpush(self._key(keys.MONITOR_SAMPLES), json.dumps(sample))
        pipe.ltrim(self._key(keys.MONITOR_SAMPLES), 0, keys.MONITOR_SAMPLES_CAP - 1)
        pipe.expire(self._key(keys.MONITOR_SAMPLES), keys.MONITOR_SAMPLES_TTL_S)
        with errors(self.broker.url):
            pipe.execute()

    def samples(self) -> list[dict[str, Any]]:
        """How the queues stood, oldest first."""
        with errors(self.broker.url):
            found: Any = self.broker.client.lrange(self._key(keys.MONITOR_SAMPLES), 0, -1)
        return [json.loads(sample) for sample in reversed(found)]

    # -- inside --------------------------------------------------------------------------------------------------------

    def _key(self, name: str) -> str:
        return self.broker.key(name)

    def _all(self, wanted: Wanted, before: tuple[float, str] | None) -> Iterator[Record]:
        """Records that may fit, latest first."""
        indexes = []
        if not wanted.states or wanted.states & records.TROUBLE:
            indexes.append(keys.HISTORY_TROUBLE)
        if not wanted.states or wanted.states - records.TROUBLE:
            indexes.append(keys.HISTORY_INDEX)
        start = before[0] if before else None
        places = heapq.merge(*(self._places(index, wanted.since, start) for index in indexes), reverse=True)
        later = (task_id for updated, task_id in places if before is None or (updated, task_id) < before)
        seen: set[str] = set()
        while chunk := list(islice(later, _AT_ONCE)):
            fresh = [task_id for task_id in chunk if task_id not in seen]
            seen.update(fresh)
            found = self.get(fresh)
            yield from (found[task_id] for task_id in fresh if task_id in found)

    def _places(self, index: str, since: float, start: float | None) -> Iterator[tuple[float, str]]:
        """(last change, id) of an index, latest first. What changes meanwhile may come twice."""
        offset, newest = 0, "+inf" if start is None else repr(start)
        while True:
            with errors(self.broker.url):
                part: Any = self.broker.client.zrevrangebyscore(
                    self._key(index), newest, since, start=offset, num=_AT_ONCE, withscores=True
                )
            yield from ((score, member.decode(errors="replace")) for member, score in part)
            if len(part) < _AT_ONCE:
                return
            offset += _AT_ONCE


def _read(data: bytes) -> Record | None:
    """A record; None for one of another version of opsq, or of nobody."""
    try:
        return records.decode(data)
    except msgspec.MsgspecError:
        return None


def _cursor(text: str) -> tuple[float, str] | None:
    """Where a page begins; None for the first one, and for what is none."""
    updated, _, task_id = text.partition(":")
    try:
        return (float(updated), task_id) if task_id else None
    except ValueError:
        return None


def outcomes_missed(
    history: History, meta_of: Callable[[str], dict[str, Any]], limit: int = 1_000
) -> Iterable[tuple[Record, dict[str, Any]]]:
    """Kept tasks that had not ended when last heard of, with the result that is stored for them meanwhile."""
    for record in history.find(Wanted(states=records.OPEN), limit).records:
        try:
            meta = meta_of(record.id)
        except DecodeError:
            continue
        if meta.get("status") in ("SUCCESS", "FAILURE", "REVOKED"):
            yield record, meta
