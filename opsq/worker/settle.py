"""How a message is settled: the writes of turn.lua for an outcome, a dead letter, a message given back.

The same rules serve the child that ran it, its parent, its successor on this host and a peer elsewhere.
"""

from __future__ import annotations

import base64
import json
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from opsq import states
from opsq._state import broker_time
from opsq.broker.settlement import Settlement, Word
from opsq.datastore import keys
from opsq.datastore.priorities import PRIORITIES, Priorities
from opsq.datastore.trouble import TROUBLE, NoPermissionError, NotKeptError, ResponseError
from opsq.exceptions import BackendStoreError, DecodeError
from opsq.execution.context import Context
from opsq.execution.outcome import ChordPart, FollowUp, Outcome, Record
from opsq.protocol import envelope, writing
from opsq.protocol.delivery_tag import new_delivery_tag
from opsq.protocol.envelope import Envelope

logger = logging.getLogger("opsq.worker")

#: Words in what a server answers that takes nothing at the moment.
_FOR_NOW = (
    *("OOM", "maxmemory", "LOADING", "loading", "BUSY", "busy", "READONLY", "read only", "MASTERDOWN", "MASTER"),
    *("MISCONF", "NOREPLICAS", "TRYAGAIN", "CLUSTERDOWN", "NOAUTH", "WRONGPASS", "EXECABORT"),
)

#: Writes of the turn that are among the results, and how many words each takes.
_AMONG_RESULTS = {"R": 4, "C": 14}

HOST = socket.gethostname()
#: How the end of a run is counted, unless it is a dead letter.
_WORDS: Mapping[str, Word] = {
    states.SUCCESS: "succeeded",
    states.FAILURE: "failed",
    states.RETRY: "retried",
    states.REJECTED: "rejected",
    states.REVOKED: "revoked",
    states.IGNORED: "ignored",
}

#: What that means for a circuit breaker.
_ENDED: Mapping[str, str] = {"succeeded": "well", "failed": "failed", "retried": "failed", "dead": "failed"}


@dataclass(frozen=True, slots=True)
class Results:
    """Where results go: their key prefix, how long they and failures are kept (seconds, 0 = for ever), who writes them.

    `database`: their database on the broker's own server: the turn writes them. Else `store` does, before the turn:
    it takes (key, seconds, bytes) of each. `record` makes the bytes of a request, a state, a value and a traceback.
    `announces`: the turn says then that they are there.
    """

    prefix: str = ""
    ttl_s: int = 86_400
    failure_ttl_s: int = 86_400
    database: int | None = None
    store: Callable[[list[tuple[str, int, bytes]]], None] | None = None
    record: Callable[[Any, str, Any, str | None], bytes] | None = None
    part: Callable[..., tuple[Any, ...]] | None = None
    count: Callable[[Sequence[Sequence[Any]]], list[str]] | None = None
    announces: bool = False


def without_claims(results: Results) -> Results:
    """The same, for somebody who sends no bodies of chords."""
    part = results.part
    return results if part is None else replace(results, part=lambda each: part(each, claim=False))


class Settler:
    """Makes settlements for the queues of one consumer."""

    def __init__(
        self, queues: list[str], results: Results, key_prefix: str = "", priorities: Priorities = PRIORITIES
    ) -> None:
        self.queues, self.results, self.key_prefix, self.priorities = queues, results, key_prefix, priorities
        #: Told the name of each chord that is complete now and whose body is this process's to send.
        self.on_complete: Callable[[str], None] = lambda _name: None

    def store_elsewhere(self, settlements: list[Settlement]) -> dict[int, str]:
        """Store the results of another server now; the turn that follows then removes, and says that they are there.

        Returns number -> why of those that this server refuses for good. Raises its errors when it cannot be reached,
        or takes nothing at the moment.
        """
        store = self.results.store
        if store is None or self.results.database is not None:
            return {}
        found = [each for each in settlements if each.count and each.writes[0] in _AMONG_RESULTS]
        if not found:
            return {}
        refused: dict[int, str] = {}
        try:
            self._store(found)
        except TROUBLE as error:
            if not _is_refusal(error):
                raise
            for each in found:
                try:
                    self._store([each])
                except TROUBLE as trouble:
                    if not _is_refusal(trouble):
                        raise
                    refused[each.number] = str(trouble)
        for each in found:
            if each.number not in refused:
                among, rest = _split(each.writes)
                told = [("N", write[1]) for write in among if write[0] == "R" and self.results.announces]
                each.writes = (*(word for write in told for word in write), *rest)
                each.count += len(told) - len(among)
        return refused

    def _store(self, settlements: list[Settlement]) -> None:
        """Store the results of settlements on the other server, then count their parts of chords there."""
        assert self.results.store is not None
        writes = [write for each in settlements for write in _split(each.writes)[0]]
        self.results.store([write[1:] for write in writes if write[0] == "R"])
        parts = [write[1:] for write in writes if write[0] == "C"]
        if parts and self.results.count is not None:
            for name in self.results.count(parts):
                self.on_complete(name)

    def outcome(self, queue: int, number: int, list_key: str, message: Envelope, outcome: Outcome) -> Settlement:
        """The end of a run: its result, what follows, and the dead letter if it is one."""
        headers = message.headers
        if not (outcome.follows or outcome.requeue or outcome.dead is not None or headers.unique is not None):
            writes = () if outcome.record is None else self.result(headers.id, outcome.record, outcome.failed)
            word = _WORDS.get(outcome.state, "")
            return Settlement(queue, number, writes, 1 if writes else 0, word, headers.task, outcome.runtime_s)
        return self._with_more(queue, number, list_key, message, outcome)

    def _with_more(self, queue: int, number: int, list_key: str, message: Envelope, outcome: Outcome) -> Settlement:
        """The same for an end from which more follows than a result."""
        writes: list[Any] = []
        count = 0
        if outcome.record is not None:
            writes += self.result(message.headers.id, outcome.record, outcome.failed)
            count = 1
        for write in sorted(map(self.write_of, outcome.follows), key=_place):
            writes += write
            count += bool(write)
        if outcome.requeue:
            writes += ("L", list_key, message.raw)
            count += 1
        if outcome.dead is not None:
            writes += self.dead_letter(queue, list_key, message.raw, outcome.dead, message, outcome.traceback)
            count += 1
        if message.headers.unique is not None and outcome.state != states.RETRY and not outcome.requeue:
            writes += self._freed(message.headers.unique, message.headers.id)
            count += 1
        word: Word = "dead" if outcome.dead is not None else _WORDS.get(outcome.state, "")
        return Settlement(queue, number, tuple(writes), count, word, message.headers.task, outcome.runtime_s)

    def later(self, queue: int, number: int, message: Envelope, due_ms: int) -> Settlement:
        """A message whose time has not come: into the delayed set of its queue."""
        member = self.priorities.suffix(message.properties.priority or 0) + message.raw
        key = self.key_prefix + keys.delayed(self.queues[queue])
        return Settlement(queue, number, ("Z", key, due_ms, member), 1)

    def back(self, queue: int, number: int, list_key: str, raw: bytes) -> Settlement:
        """A message that was not started: to the head of its list, as it is."""
        return Settlement(queue, number, ("H", list_key, raw), 1)

    @staticmethod
    def hand_in(settlement: Settlement, passes: str, unused: bool | None = None) -> None:
        """Have what a message holds of its limits become free with its settlement.

        `unused`: it was not started; None = as its settlement says. One that goes back says that it was before others.
        """
        if settlement.writes[:1] == ("F",):
            return
        if unused is None:
            unused = settlement.word in ("", "expired")
        ended = "unused" if unused else _ENDED.get(settlement.word, "")
        writes = settlement.writes
        if unused and writes[:1] == ("H",):
            writes = (*writes[:2], writing.parked(writes[2]), *writes[3:])
        settlement.writes = ("F", passes, settlement.number, ended, *writes)
        settlement.count += 1

    def broken(self, queue: int, number: int, list_key: str, raw: bytes, error: DecodeError) -> Settlement:
        """A message that cannot be read: to the dead letters."""
        writes, count = self._buried(queue, list_key, raw, str(error))
        return Settlement(queue, number, writes, count, "dead", _some_task(raw) or "")

    def bury(self, settlement: Settlement, list_key: str, raw: bytes, error: str, tell: bool) -> None:
        """A dead letter in place of an outcome that cannot be written. `tell`: its result says so to
        who waits, and it counts as part of its chord."""
        logger.error("the outcome of a task cannot be written, its message goes to the dead letters: %s", error)
        reason = f"its outcome could not be written: {error}"
        parts = [write for write in _split(settlement.writes)[0] if write[0] == "C"] if tell else []
        letter, count = self._buried(settlement.queue, list_key, raw, reason)
        result = self._failure(raw, reason) if tell else ()
        settlement.writes = (*result, *(word for part in parts for word in part), *letter)
        settlement.count, settlement.word = bool(result) + len(parts) + count, "dead"

    def _failure(self, raw: bytes, reason: str) -> tuple[Any, ...]:
        """The write of a result that tells a failure of ours; empty where none is kept."""
        try:
            message = envelope.parse(raw)
        except DecodeError:
            return ()
        if self.results.record is None or message.headers.ignore_result:
            return ()
        request = Context.of(message, None, HOST)
        record = self.results.record(request, states.FAILURE, BackendStoreError(reason), None)
        return self.result(message.headers.id, record, failed=True)

    def _buried(self, queue: int, list_key: str, raw: bytes, reason: str) -> tuple[tuple[Any, ...], int]:
        """The writes that bury a message that may not be readable, and their number."""
        writes = self.dead_letter(queue, list_key, raw, reason, None)
        claimed = _some_header(raw, envelope.UNIQUE)
        return (writes, 1) if claimed is None else ((*writes, *self._freed(claimed, _some_id(raw))), 2)

    def dead_letter(
        self, queue: int, list_key: str, raw: bytes, reason: str, message: Envelope | None, error: str | None = None
    ) -> tuple[Any, ...]:
        """The write that buries a message with its reason."""
        name, now = self.queues[queue], broker_time()
        record = {
            "id": message.headers.id if message else _some_id(raw),
            "task": message.headers.task if message else _some_task(raw),
            "queue": name,
            "reason": reason,
            "time": now,
            "host": HOST,
            "deliveries": message.headers.deliveries if message else 0,
            "error": error,
            "list": list_key,
            **_as_text(raw),
        }
        hash_key, index_key = self.key_prefix + keys.dead(name), self.key_prefix + keys.dead_index(name)
        oldest = repr(now - keys.DEAD_AGE_S)
        return ("D", hash_key, index_key, record["id"], repr(now), json.dumps(record), keys.DEAD_CAP, oldest)

    def _freed(self, claimed: str, task_id: str) -> tuple[Any, ...]:
        """The write that frees what a unique message had claimed."""
        return ("U", self.key_prefix + keys.unique(claimed), task_id)

    def may_take_back(self, settlement: Settlement, consumer: str) -> None:
        """Add to a dead letter what its consumer needs to take it back, should it turn out to be alive."""
        name, prefix = self.queues[settlement.queue], self.key_prefix
        where = prefix + keys.stats(name), prefix + keys.totals(name)
        field = prefix + keys.taken(name, consumer), settlement.number
        settlement.writes = (*settlement.writes, "X", *field, *where, settlement.task, keys.TAKEN_S)
        settlement.count += 1

    def result(self, task_id: str, record: bytes, failed: bool = False) -> tuple[Any, ...]:
        """The write that stores a result."""
        ttl_s = self.results.failure_ttl_s if failed else self.results.ttl_s
        return ("R", self.results.prefix + keys.result(task_id), ttl_s, record)

    def write_of(self, follow: FollowUp | Record | ChordPart) -> tuple[Any, ...]:
        """The write of something that follows; empty for a part of a chord where no results are kept."""
        if isinstance(follow, Record):
            return ("R", follow.key, follow.ttl_s, follow.data)
        if isinstance(follow, ChordPart):
            return () if self.results.part is None else ("C", *self.results.part(follow))
        if follow.channel:
            return ("P", follow.channel, follow.raw)
        list_key = self.key_prefix + self.priorities.list_of(follow.queue, follow.priority)
        if follow.due_ms is not None:
            member = self.priorities.suffix(follow.priority) + follow.raw
            return ("W", self.key_prefix + keys.delayed(follow.queue), list_key, follow.due_ms, member)
        return ("L", list_key, follow.raw)


def _place(write: tuple[Any, ...]) -> int:
    """What is among the results comes first, results before parts of chords."""
    return "RC".find(write[0]) % 3 if write else 0


def _split(writes: tuple[Any, ...]) -> tuple[list[tuple[Any, ...]], tuple[Any, ...]]:
    """The writes among the results, one by one, and all others."""
    among, at = [], 0
    while at < len(writes) and (length := _AMONG_RESULTS.get(writes[at])):
        among.append(writes[at : at + length])
        at += length
    return among, writes[at:]


def _is_refusal(error: BaseException) -> bool:
    """Whether a server will refuse the same thing for ever: not one that is full, loading, busy, or read-only now."""
    cause = error if isinstance(error, ResponseError) else error.__cause__
    if not isinstance(cause, ResponseError):
        return False
    text = str(cause)
    return isinstance(cause, NoPermissionError | NotKeptError) or not any(word in text for word in _FOR_NOW)


def counted(message: Envelope) -> bytes:
    """A message that had been started, with one delivery more on its account."""
    return writing.changed(message.raw, {envelope.DELIVERIES: message.headers.deliveries + 1, "redelivered": True})


def _as_text(raw: bytes) -> dict[str, str]:
    try:
        return {"message": raw.decode()}
    except UnicodeDecodeError:
        return {"message": base64.b64encode(raw).decode(), "encoding": "base64"}


def _some_header(raw: bytes, name: str) -> str | None:
    try:
        found = json.loads(raw)["headers"][name]
        return found if isinstance(found, str) and found.isprintable() else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _some_id(raw: bytes) -> str:
    """The task id of a message that cannot be read as a whole, else an id of the tag's form."""
    return _some_header(raw, "id") or f"unreadable-{new_delivery_tag()}"


def _some_task(raw: bytes) -> str | None:
    return _some_header(raw, "task")
