"""What is in the queues: how much waits and for how long, who consumes; looking into a queue, and emptying it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opsq.broker.broker import Broker
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.exceptions import DecodeError
from opsq.protocol import envelope

#: How much of a message's arguments is shown.
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue as it is now. `oldest_s`: how long the first message has waited, None if its message does not say."""

    name: str
    waiting: Mapping[int, int]
    delayed: int
    in_flight: int
    dead: int
    oldest_s: float | None
    consumers: int
    paused: bool

    @property
    def depth(self) -> int:
        """Waiting messages of all priorities."""
        return sum(self.waiting.values())


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


def known(broker: Broker, more: Iterable[str] = ()) -> list[str]:
    """The names of the queues that were ever used through opsq, and `more`."""
    with errors(broker.url):
        found: Any = broker.client.smembers(broker.key(keys.QUEUES))
    return sorted({*more, *(name.decode(errors="replace") for name in found)})


def states(broker: Broker, names: Sequence[str]) -> list[QueueState]:
    """The queues as they are now, in three round trips whatever their number."""
    if not names:
        return []
    with errors(broker.url):
        now_ms = server_ms(broker)
        pipe = broker.client.pipeline(transaction=False)
        for name in names:
            _ask_about(pipe, broker, name, now_ms)
        answers = pipe.execute()
        width = len(answers) // len(names)
        parts = [answers[at : at + width] for at in range(0, len(answers), width)]
        held = _in_flight(broker, names, [part[-1] for part in parts])
    return [_state(name, part, held[name], now_ms) for name, part in zip(names, parts, strict=True)]


def server_ms(broker: Broker) -> int:
    """The server's clock (Unix ms), which ends leases."""
    answer: Any = broker.client.time()
    seconds, micros = answer
    return int(seconds) * 1000 + int(micros) // 1000


def _ask_about(pipe: Any, broker: Broker, name: str, now_ms: int) -> None:
    lists = [broker.key(each) for each in keys.priority_lists(name)]
    for each in lists:
        pipe.llen(each)
    for each in lists:
        pipe.lindex(each, -1)
    pipe.zcard(broker.key(keys.delayed(name)))
    pipe.hlen(broker.key(keys.dead(name)))
    pipe.exists(broker.key(keys.paused(name)))
    pipe.zcount(broker.key(keys.consumers(name)), now_ms, "+inf")
    pipe.zrange(broker.key(keys.consumers(name)), 0, -1)


def _in_flight(broker: Broker, names: Sequence[str], consumers: Sequence[Sequence[bytes]]) -> dict[str, int]:
    """How many messages the consumers of each queue hold."""
    pipe = broker.client.pipeline(transaction=False)
    owners = []
    for name, members in zip(names, consumers, strict=True):
        for member in members:
            owners.append(name)
            pipe.hlen(broker.key(keys.inflight(name, member.decode(errors="replace"))))
    held = dict.fromkeys(names, 0)
    for name, count in zip(owners, pipe.execute(), strict=True):
        held[name] += count
    return held


def _state(name: str, part: Sequence[Any], held: int, now_ms: int) -> QueueState:
    steps = keys.PRIORITY_STEPS
    lengths, heads = part[: len(steps)], part[len(steps) : 2 * len(steps)]
    delayed, dead, paused, consumers, _members = part[2 * len(steps) :]
    published = [ms for head in heads if head is not None and (ms := _published_ms(head)) is not None]
    return QueueState(
        name=name,
        waiting=dict(zip(steps, lengths, strict=True)),
        delayed=delayed,
        in_flight=held,
        dead=dead,
        oldest_s=max(now_ms - min(published), 0) / 1000 if published else None,
        consumers=consumers,
        paused=bool(paused),
    )


def _published_ms(raw: bytes) -> int | None:
    try:
        tag = envelope.parse(raw).properties.delivery_tag
    except DecodeError:
        return None
    return envelope.published_ms(tag) if isinstance(tag, str) else None


def peek(broker: Broker, queue: str, limit: int = 0) -> list[Waiting]:
    """The next messages of a queue, as they would be taken; 0 = all. Nothing is changed."""
    found: list[Waiting] = []
    with errors(broker.url):
        for step in keys.PRIORITY_STEPS:
            left = limit - len(found)
            if limit and left <= 0:
                break
            raws: Any = broker.client.lrange(broker.key(keys.priority_list(queue, step)), -left if limit else 0, -1)
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
        published_ms=_published_ms(raw),
        eta=headers.eta,
        retries=headers.retries or 0,
        args=str(said.get("argsrepr") or "")[:_SHOWN],
        kwargs=str(said.get("kwargsrepr") or "")[:_SHOWN],
        size=len(raw),
    )


def purge(broker: Broker, queue: str) -> int:
    """Throw away everything that waits in a queue, now or for later, in one step; how many messages that were.

    What is in flight, and the dead letters, stay.
    """
    lists = [broker.key(each) for each in keys.priority_lists(queue)]
    delayed = broker.key(keys.delayed(queue))
    with errors(broker.url):
        pipe = broker.client.pipeline(transaction=True)
        for each in lists:
            pipe.llen(each)
        pipe.zcard(delayed)
        pipe.delete(*lists, delayed)
        return int(sum(pipe.execute()[:-1]))


def pause(broker: Broker, queue: str) -> None:
    """Have nothing more leased from a queue, until it is resumed; what runs goes on, publishers may go on too."""
    with errors(broker.url):
        broker.client.set(broker.key(keys.paused(queue)), "1")


def resume(broker: Broker, queue: str) -> None:
    """Have messages of a paused queue leased again; idle workers wake."""
    with errors(broker.url):
        broker.client.delete(broker.key(keys.paused(queue)))
