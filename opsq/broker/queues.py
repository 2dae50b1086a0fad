"""What is in the queues: looking into one, pausing it; how much waits says `depths`, handed on here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opsq.broker.broker import Broker
from opsq.broker.depths import QueueState, known, published_ms, states
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.exceptions import DecodeError
from opsq.protocol import envelope

__all__ = ["QueueState", "Waiting", "known", "pause", "peek", "resume", "server_ms", "states"]

#: How much of a message's arguments is shown.
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message in a queue; `trouble` says why it cannot be read."""

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


def server_ms(broker: Broker) -> int:
    """The server's clock (Unix ms), which ends leases."""
    answer: Any = broker.client.time()
    seconds, micros = answer
    return int(seconds) * 1000 + int(micros) // 1000


def peek(broker: Broker, queue: str, limit: int = 0) -> list[Waiting]:
    """The next messages of a queue, as they would be taken; 0 = all. Nothing is changed."""
    found: list[Waiting] = []
    with errors(broker.url):
        for step in broker.priorities.steps:
            left = limit - len(found)
            if limit and left <= 0:
                break
            raws: Any = broker.client.lrange(
                broker.key(broker.priorities.at_step(queue, step)), -left if limit else 0, -1
            )
            found += (_waiting(raw, step) for raw in reversed(raws))
    return found


def _waiting(raw: bytes, step: int) -> Waiting:
    try:
        message = envelope.parse(raw)
        headers, said = message.headers, message.everything()["headers"]
    except DecodeError as error:
        return Waiting(None, None, step, None, None, 0, "", "", len(raw), str(error))
    return Waiting(
        id=headers.id,
        task=headers.task,
        step=step,
        published_ms=published_ms(raw),
        eta=headers.eta,
        retries=headers.retries or 0,
        args=str(said.get("argsrepr") or "")[:_SHOWN],
        kwargs=str(said.get("kwargsrepr") or "")[:_SHOWN],
        size=len(raw),
    )


def pause(broker: Broker, queue: str) -> None:
    """Have nothing more leased from a queue, until it is resumed; what runs goes on, publishers may go on too."""
    with errors(broker.url):
        broker.client.set(broker.key(keys.paused(queue)), "1")


def resume(broker: Broker, queue: str) -> None:
    """Have messages of a paused queue leased again; idle workers wake."""
    with errors(broker.url):
        broker.client.delete(broker.key(keys.paused(queue)))
