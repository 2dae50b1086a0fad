"""One task as its events tell it: a record that each event changes a little. No Redis here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from opsq import states

#: Most characters kept of each text; events of others may be of any size.
NAME_LIMIT, TEXT_LIMIT, TRACEBACK_LIMIT = 255, 1_024, 16_384
#: Tries of a task that are remembered; the latest ones.
TRIES_LIMIT = 20

#: Type of event -> the state that it means (wire section 6).
STATES: Mapping[str, str] = {
    "task-sent": states.PENDING,
    "task-received": states.RECEIVED,
    "task-started": states.STARTED,
    "task-retried": states.RETRY,
    "task-succeeded": states.SUCCESS,
    "task-failed": states.FAILURE,
    "task-revoked": states.REVOKED,
    "task-rejected": states.REJECTED,
}
_RANK = {
    states.PENDING: 0,
    states.RECEIVED: 1,
    states.STARTED: 2,
    states.RETRY: 3,
    states.SUCCESS: 4,
    states.FAILURE: 4,
    states.REVOKED: 4,
    states.REJECTED: 4,
}
OPEN = frozenset((states.PENDING, states.RECEIVED, states.STARTED, states.RETRY))
#: What people look for later: kept apart, so that successes do not push it out.
TROUBLE = frozenset((states.FAILURE, states.RETRY, states.REVOKED, states.REJECTED))


class Event(msgspec.Struct, gc=False):
    """What we read of an event: Celery's fields, and those of opsq where it says more."""

    type: str
    timestamp: float = 0.0
    hostname: str | None = None
    uuid: str | None = None
    name: str | None = None
    args: str | None = None
    kwargs: str | None = None
    queue: str | None = None
    routing_key: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    retries: int | None = None
    eta: str | None = None
    expires: str | None = None
    result: str | None = None
    runtime: float | None = None
    exception: str | None = None
    traceback: str | None = None
    terminated: bool | None = None
    expired: bool | None = None
    pid: int | None = None
    freq: float | None = None
    active: int | None = None
    processed: int | None = None
    loadavg: list[float] | None = None
    sw_ident: str | None = None
    sw_ver: str | None = None


class Try(msgspec.Struct, array_like=True):
    """One try that ended in a retry: when (Unix seconds), and why."""

    time: float
    exception: str


class Record(msgspec.Struct, omit_defaults=True):
    """What is known of a task. Points in time are Unix seconds, 0 = not known; `runtime` is in seconds."""

    id: str
    name: str = ""
    state: str = states.PENDING
    args: str = ""
    kwargs: str = ""
    queue: str = ""
    worker: str = ""
    root_id: str = ""
    parent_id: str = ""
    retries: int = 0
    eta: str = ""
    expires: str = ""
    sent: float = 0.0
    received: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    updated: float = 0.0
    runtime: float | None = None
    result: str = ""
    exception: str = ""
    traceback: str = ""
    note: str = ""
    tries: list[Try] = []

    @property
    def open(self) -> bool:
        """Whether more is to come."""
        return self.state in OPEN

    @property
    def text(self) -> str:
        """All that a search for words looks through."""
        return "\n".join((self.id, self.name, self.args, self.kwargs, self.result, self.exception, self.traceback))


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Record).decode


def apply(record: Record, event: Event) -> None:
    """Change the record as an event of its task says. Events may come late, doubled, or not at all."""
    state = STATES.get(event.type)
    if state is None:
        return
    _take_facts(record, event)
    at = event.timestamp
    newer = at > record.updated or _RANK[state] > _RANK[record.state]
    if state == states.PENDING:
        record.sent = record.sent or at
    elif state == states.RECEIVED:
        record.received = at if newer or not record.received else record.received
    elif state == states.STARTED:
        record.started = at if newer or not record.started else record.started
    elif state == states.RETRY:
        _take_try(record, event)
    elif newer:
        _take_end(record, event)
    if newer and not (state == states.PENDING and record.state != states.PENDING):
        record.state = state
    record.updated = max(record.updated, at)
    if record.state == states.FAILURE and record.started:  # events of failures do not say it
        record.runtime = max(record.finished - record.started, 0.0)


def _take_facts(record: Record, event: Event) -> None:
    """What an event says of the call itself."""
    if event.name is not None:
        record.name = event.name[:NAME_LIMIT]
        record.args, record.kwargs = _cut(event.args, record.args), _cut(event.kwargs, record.kwargs)
        record.root_id, record.parent_id = _cut(event.root_id, record.root_id), _cut(event.parent_id, record.parent_id)
        record.eta, record.expires = _cut(event.eta, record.eta), _cut(event.expires, record.expires)
    if event.retries is not None:
        record.retries = max(record.retries, event.retries)
    if queue := event.queue or event.routing_key:
        record.queue = queue[:NAME_LIMIT]
    if event.hostname and event.type != "task-sent":
        record.worker = event.hostname[:NAME_LIMIT]


def _take_try(record: Record, event: Event) -> None:
    found = Try(event.timestamp, (event.exception or "")[:TEXT_LIMIT])
    if found not in record.tries:
        record.tries = [*record.tries, found][-TRIES_LIMIT:]
    record.retries = max(record.retries, len(record.tries))
    record.exception, record.traceback = found.exception, (event.traceback or "")[:TRACEBACK_LIMIT]


def _take_end(record: Record, event: Event) -> None:
    record.finished = event.timestamp
    if event.type == "task-succeeded":
        record.result, record.runtime = _cut(event.result, ""), event.runtime
        record.exception = record.traceback = ""
    elif event.type == "task-failed":
        record.exception, record.traceback = _cut(event.exception, ""), (event.traceback or "")[:TRACEBACK_LIMIT]
    elif event.type == "task-revoked":
        record.note = "terminated" if event.terminated else "expired" if event.expired else "revoked"


def _cut(text: str | None, otherwise: str) -> str:
    return otherwise if text is None else text[:TEXT_LIMIT]


def described(record: Record) -> dict[str, Any]:
    """The record as scripts get it: what is not known is null."""
    data = {name: getattr(record, name) for name in record.__struct_fields__}
    for name in ("sent", "received", "started", "finished", "updated"):
        data[name] = data[name] or None
    blank = ("root_id", "parent_id", "eta", "expires", "result", "exception", "traceback", "note", "queue", "worker")
    for name in blank:
        data[name] = data[name] or None
    data["tries"] = [{"time": each.time, "exception": each.exception} for each in record.tries]
    return data
