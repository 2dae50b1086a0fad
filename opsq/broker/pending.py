"""All messages of some queues that have not ended: waiting, for later, waiting for a limit, in somebody's hands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from opsq.broker.broker import Broker
from opsq.broker.lanes import lanes
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.exceptions import DecodeError
from opsq.protocol import envelope

#: Messages of one step.
_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Pending:
    """One message: the id and the name of its task, its queue, and where it is."""

    id: str
    task: str
    queue: str
    kind: Literal["waiting", "delayed", "limited", "in flight"]


def pending(broker: Broker, queues: Sequence[str]) -> Iterator[Pending]:
    """Every one that can be read; one that moves on meanwhile may come twice. Raises BrokerError."""
    with errors(broker.url):
        for queue in queues:
            for member in _parts(broker, broker.key(keys.delayed(queue)), "zset"):
                yield from _of(member.partition(b"|")[2], queue, "delayed")
            for lane in lanes(broker.client, broker.key_prefix, [queue]):
                for name in lane.lists:
                    for raw in _parts(broker, name, "list"):
                        yield from _of(raw, queue, "limited")
            for name in broker.priorities.lists(queue):
                for raw in _parts(broker, broker.key(name), "list"):
                    yield from _of(raw, queue, "waiting")
            for raw in _held(broker, queue):
                yield from _of(raw, queue, "in flight")


def _parts(broker: Broker, key: str, kind: str) -> Iterator[bytes]:
    """From the end where new ones come in, so that none is missed while others are taken."""
    if broker.client.type(key) != kind.encode():
        return
    read = broker.client.lrange if kind == "list" else broker.client.zrevrange
    first = 0
    while found := _read(read, key, first):
        yield from found
        first += _AT_ONCE


def _read(read: Any, key: str, first: int) -> list[bytes]:
    found: list[bytes] = read(key, first, first + _AT_ONCE - 1)
    return found


def _held(broker: Broker, queue: str) -> Iterator[bytes]:
    consumers: Any = broker.client.zrange(broker.key(keys.consumers(queue)), 0, -1)
    for consumer in consumers:
        held: Any = broker.client.hvals(broker.key(keys.inflight(queue, consumer.decode())))
        yield from held


def _of(raw: bytes, queue: str, kind: Literal["waiting", "delayed", "limited", "in flight"]) -> Iterator[Pending]:
    try:
        headers = envelope.parse(raw).headers
    except DecodeError:
        return
    yield Pending(headers.id, headers.task, queue, kind)
