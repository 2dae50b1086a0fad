"""What is in the queues: looking into one, pausing it; how much waits says `depths`, handed on here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from opsq.broker.broker import Broker
from opsq.broker.depths import QueueState, known, published_of, states
from opsq.broker.lanes import lanes
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.datastore.server_time import in_ms
from opsq.exceptions import DecodeError
from opsq.protocol import envelope
from opsq.protocol.routing import read_bindings
from opsq.utils.time import parse_iso

__all__ = ["QueueState", "Waiting", "bindings", "expires_s", "known", "pause", "peek", "resume", "server_ms", "states"]

#: How much of a message's arguments is shown.
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message in a queue; `trouble` says why it cannot be read. `expires`: until when it is to be run (Unix seconds);
    `limits`: the task or the queue whose limits it waits for (`task proj.mail`), None when it waits for a worker only.
    """

    id: str | None
    task: str | None
    step: int
    published_ms: int | None
    eta: str | None
    retries: int
    args: str
    kwargs: str
    size: int
    trouble: str | None = None
    expires: float | None = None
    limits: str | None = None


def server_ms(broker: Broker) -> int:
    """The server's clock (Unix ms), which ends leases."""
    answer: Any = broker.client.time()
    return in_ms(answer)


def peek(broker: Broker, queue: str, limit: int = 0) -> list[Waiting]:
    """The next messages of a queue, as they would be taken, then those that wait for limits, lane by lane; 0 = all.

    Nothing is changed.
    """
    found: list[Waiting] = []
    with errors(broker.url):
        for name, step, owner in _lists(broker, queue):
            left = limit - len(found)
            if limit and left <= 0:
                break
            raws: Any = broker.client.lrange(name, -left if limit else 0, -1)
            found += (_waiting(raw, step, owner) for raw in reversed(raws))
    return found


def _lists(broker: Broker, queue: str) -> Iterator[tuple[str, int, str | None]]:
    """The lists of a queue and of its lanes: name, priority step, whose limits are waited for there."""
    steps = broker.priorities.steps
    for step in steps:
        yield broker.key(broker.priorities.at_step(queue, step)), step, None
    for lane in lanes(broker.client, broker.key_prefix, [queue]):
        for name, step in zip(lane.lists, steps, strict=False):
            yield name, step, " ".join(lane.owner)


def _waiting(raw: bytes, step: int, limits: str | None) -> Waiting:
    try:
        message = envelope.parse(raw)
        headers, said = message.headers, message.everything()["headers"]
    except DecodeError as error:
        return Waiting(None, None, step, None, None, 0, "", "", len(raw), str(error), limits=limits)
    return Waiting(
        id=headers.id,
        task=headers.task,
        step=step,
        published_ms=published_of(raw),
        eta=headers.eta,
        retries=headers.retries or 0,
        args=str(said.get("argsrepr") or "")[:_SHOWN],
        kwargs=str(said.get("kwargsrepr") or "")[:_SHOWN],
        size=len(raw),
        expires=expires_s(headers),
        limits=limits,
    )


def bindings(broker: Broker, exchanges: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Exchange, routing key and queue of each of Celery's bindings to these exchanges."""
    with errors(broker.url):
        pipe = broker.client.pipeline(transaction=False)
        for exchange in exchanges:
            pipe.smembers(broker.key(keys.binding(exchange)))
        found = pipe.execute()
    for exchange, members in zip(exchanges, found, strict=True):
        for each in read_bindings(members, broker.priorities.separator):
            yield exchange, each.routing_key, each.queue


def expires_s(headers: envelope.Headers) -> float | None:
    """Until when a message is to be run (Unix seconds; a naive time is taken as UTC's), None = whenever."""
    try:
        return None if headers.expires is None else parse_iso(headers.expires).timestamp()
    except ValueError:
        return None


def pause(broker: Broker, queue: str) -> None:
    """Have nothing more leased from a queue, until it is resumed; what runs goes on, publishers may go on too."""
    with errors(broker.url):
        broker.client.set(broker.key(keys.paused(queue)), "1")


def resume(broker: Broker, queue: str) -> None:
    """Have messages of a paused queue leased again; idle workers wake."""
    with errors(broker.url):
        broker.client.delete(broker.key(keys.paused(queue)))
