"""Where a task's messages are now: waiting, for later, in somebody's hands, among the dead. Reads, changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from opsq.broker import deadletters
from opsq.broker.broker import LUA, Broker
from opsq.broker.lanes import lanes
from opsq.broker.queues import expires_s, server_ms
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.datastore.scripts import Script
from opsq.exceptions import DecodeError
from opsq.protocol import envelope

FIND = Script(LUA / "find.lua")

#: Messages of one step, and of one list in all: beyond that it is not looked for.
AT_ONCE, MOST = 1_000, 1_000_000

Kind = Literal["delayed", "limited", "waiting", "in flight", "celery", "dead"]


@dataclass(frozen=True, slots=True)
class Place:
    """One of them. Of the rest only what its kind has is set.

    `ahead`: messages that will be taken before it; `due_ms`: Unix ms; `holder`: who has it, under `number`;
    `lease_ms`: when that one's lease ends or ended (Unix ms); `since`: when it died or was taken (Unix seconds);
    `reason`: why it is dead, or whose limits it waits for; `expires`: until when it is to be run (Unix seconds).
    """

    kind: Kind
    queue: str
    task: str | None
    retries: int = 0
    deliveries: int = 0
    ahead: int = 0
    due_ms: int | None = None
    holder: str | None = None
    number: int | None = None
    lease_ms: int | None = None
    since: float | None = None
    reason: str | None = None
    host: str | None = None
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """What was found, and in which keys not all could be looked at."""

    places: list[Place]
    cut_short: list[str]
    now_ms: int


def search(broker: Broker, queues: Sequence[str], task_id: str) -> Search:
    """Look everywhere, in the order in which messages move on, so that one that moves meanwhile is not missed."""
    cut_short: list[str] = []
    with errors(broker.url):
        now_ms = server_ms(broker)
        places = _all(broker, queues, task_id, cut_short) or _all(broker, queues, task_id, [])
    return Search(places, cut_short, now_ms)


def _all(broker: Broker, queues: Sequence[str], task_id: str, cut_short: list[str]) -> list[Place]:
    found: list[Place] = []
    for queue in queues:
        found += _delayed(broker, queue, task_id, cut_short)
    found += _limited(broker, queues, task_id, cut_short)
    for queue in queues:
        found += _waiting(broker, queue, task_id, cut_short)
    for queue in queues:
        found += _held(broker, queue, task_id)
    found += _held_by_celery(broker, task_id, cut_short)
    for letter in deadletters.find(broker, queues, task_id):
        record = letter.record
        more = {"since": record["time"], "reason": record["reason"], "host": record["host"]}
        deliveries = record["deliveries"] or 0
        found.append(Place("dead", letter.queue, record["task"], deliveries=deliveries, **more))
    return found


def _delayed(broker: Broker, queue: str, task_id: str, cut_short: list[str]) -> Iterator[Place]:
    for _length, _at, score, member in _scan(broker, broker.key(keys.delayed(queue)), task_id, cut_short):
        message = _message(member.partition(b"|")[2], task_id)
        if message is not None:
            yield _place("delayed", queue, message, due_ms=int(float(score)))


def _limited(broker: Broker, queues: Sequence[str], task_id: str, cut_short: list[str]) -> Iterator[Place]:
    """In the lists of those that wait for their limits; the next one of each is at its end, as in a queue."""
    for lane in lanes(broker.client, broker.key_prefix, queues):
        for name in lane.lists:
            for length, at, _score, raw in _scan(broker, name, task_id, cut_short):
                message = _message(raw, task_id)
                if message is not None:
                    more = {"ahead": length - 1 - at, "due_ms": lane.again_ms, "reason": " ".join(lane.owner)}
                    yield _place("limited", lane.queue, message, **more)


def _waiting(broker: Broker, queue: str, task_id: str, cut_short: list[str]) -> Iterator[Place]:
    before = 0
    for name in broker.priorities.lists(queue):
        for length, at, _score, raw in _scan(broker, broker.key(name), task_id, cut_short):
            message = _message(raw, task_id)
            if message is not None:
                yield _place("waiting", queue, message, ahead=before + length - 1 - at)
        if broker.client.type(broker.key(name)) == b"list":
            waiting: Any = broker.client.llen(broker.key(name))
            before += waiting


def _scan(broker: Broker, name: str, task_id: str, cut_short: list[str]) -> Iterator[tuple[int, int, bytes, bytes]]:
    """(length, place, score, bytes) of what may be a message of the task, a part at a time."""
    for passed in range(0, MOST, AT_ONCE):
        answer: Any = FIND.run(broker.client, [name], [json.dumps(task_id), passed, AT_ONCE])
        length = answer[0]
        for place, score, raw in zip(answer[1::3], answer[2::3], answer[3::3], strict=True):
            yield length, place, score, raw
        if passed + AT_ONCE >= length:
            return
    cut_short.append(name)


def _held(broker: Broker, queue: str, task_id: str) -> Iterator[Place]:
    """In the stores of consumers, also of those that have gone."""
    members: Any = broker.client.zrange(broker.key(keys.consumers(queue)), 0, -1, withscores=True)
    pipe = broker.client.pipeline(transaction=False)
    for consumer, _lease in members:
        pipe.hgetall(broker.key(keys.inflight(queue, consumer.decode())))
    for (consumer, lease), store in zip(members, pipe.execute() if members else (), strict=True):
        for number, raw in store.items():
            message = _message(raw, task_id)
            if message is not None:
                more = {"holder": consumer.decode(), "number": int(number), "lease_ms": int(lease)}
                yield _place("in flight", queue, message, **more)


def _held_by_celery(broker: Broker, task_id: str, cut_short: list[str]) -> Iterator[Place]:
    """In kombu's store of what Celery's workers have taken."""
    store = broker.key(keys.UNACKED)
    needle = json.dumps(task_id).encode()
    for looked_at, (tag, entry) in enumerate(broker.client.hscan_iter(store, count=AT_ONCE)):
        if looked_at >= MOST:
            cut_short.append(keys.UNACKED)
            return
        if needle not in entry:
            continue
        try:
            message, _exchange, routing_key = json.loads(entry)
            headers = message["headers"]
        except (ValueError, TypeError, KeyError):
            continue
        if headers.get("id") == task_id:
            since: Any = broker.client.zscore(broker.key(keys.UNACKED_INDEX), tag)
            yield Place("celery", routing_key, headers.get("task"), headers.get("retries") or 0, since=since)


def _message(raw: bytes, task_id: str) -> envelope.Envelope | None:
    """The message, if it is one of the task."""
    if json.dumps(task_id).encode() not in raw:
        return None
    try:
        message = envelope.parse(raw)
    except DecodeError:
        return None
    return message if message.headers.id == task_id else None


def _place(kind: Kind, queue: str, message: envelope.Envelope, **more: Any) -> Place:
    headers = message.headers
    more["expires"] = expires_s(headers)
    return Place(kind, queue, headers.task, headers.retries or 0, headers.deliveries, **more)
