"""How much is in the queues, for how long, and who consumes: numbers only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from opsq.datastore import keys
from opsq.datastore.line import Ask, questions
from opsq.datastore.priorities import PRIORITIES, Priorities
from opsq.datastore.server_time import in_ms
from opsq.exceptions import DecodeError
from opsq.protocol import envelope
from opsq.protocol.delivery_tag import published_ms


class Place(Protocol):
    """Where the queues are: a Broker, or no more than its address."""

    @property
    def url(self) -> str:
        """The server."""

    @property
    def priorities(self) -> Priorities:
        """The lists of each queue."""

    def key(self, name: str) -> str:
        """A key's name with the global prefix."""


@dataclass(frozen=True, slots=True)
class Address:
    """No more than where they are."""

    url: str
    key_prefix: str = ""
    priorities: Priorities = PRIORITIES

    def key(self, name: str) -> str:
        """A key's name with the global prefix."""
        return self.key_prefix + name


def answers(broker: Place) -> bool:
    """Whether the server is there. Raises BrokerError when it is not."""
    with questions(broker.url) as ask:
        return bool(ask([("PING",)]))


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue as it is now. `oldest_s`: how long the first message has waited, None if its message does not say;
    `limited`: messages that wait for their limits.
    """

    name: str
    waiting: Mapping[int, int]
    delayed: int
    in_flight: int
    dead: int
    oldest_s: float | None
    consumers: int
    paused: bool
    limited: int = 0

    @property
    def depth(self) -> int:
        """Waiting messages of all priorities."""
        return sum(self.waiting.values())

    @property
    def pending(self) -> int:
        """All that has still to run and that nobody has in hand."""
        return self.depth + self.delayed + self.limited

    def to_data(self) -> dict[str, Any]:
        """As scripts get it; durations in seconds."""
        return {
            "name": self.name,
            "waiting": self.depth,
            "by_priority": {str(step): count for step, count in self.waiting.items()},
            "delayed": self.delayed,
            "limited": self.limited,
            "in_flight": self.in_flight,
            "dead": self.dead,
            "oldest": self.oldest_s,
            "consumers": self.consumers,
            "paused": self.paused,
        }


def known(broker: Place, more: Iterable[str] = ()) -> list[str]:
    """The names of the queues that were ever used through opsq, and `more`."""
    with questions(broker.url) as ask:
        (found,) = ask([("SMEMBERS", broker.key(keys.QUEUES))])
    return sorted({*more, *(name.decode(errors="replace") for name in found)})


def states(broker: Place, names: Sequence[str]) -> list[QueueState]:
    """The queues as they are now, in three round trips whatever their number."""
    if not names:
        return []
    with questions(broker.url) as ask:
        now_ms = _server_ms(ask)
        answers = ask([command for name in names for command in _about(broker, name, now_ms)])
        width = len(answers) // len(names)
        parts = [answers[at : at + width] for at in range(0, len(answers), width)]
        held = _in_flight(ask, broker, names, [part[-1] for part in parts])
    return [
        _state(name, broker.priorities.steps, part, held[name], now_ms) for name, part in zip(names, parts, strict=True)
    ]


def _server_ms(ask: Ask) -> int:
    return in_ms(ask([("TIME",)])[0])


def _about(broker: Place, name: str, now_ms: int) -> list[tuple[Any, ...]]:
    lists = [broker.key(each) for each in broker.priorities.lists(name)]
    consumers = broker.key(keys.consumers(name))
    return [
        *(("LLEN", each) for each in lists),
        *(("LINDEX", each, -1) for each in lists),
        ("ZCARD", broker.key(keys.delayed(name))),
        ("HGET", broker.key(keys.lane_facts(name)), "#"),
        ("HLEN", broker.key(keys.dead(name))),
        ("EXISTS", broker.key(keys.paused(name))),
        ("ZCOUNT", consumers, now_ms, "+inf"),
        ("ZRANGE", consumers, 0, -1),
    ]


def _in_flight(ask: Ask, broker: Place, names: Sequence[str], consumers: Sequence[Sequence[bytes]]) -> dict[str, int]:
    """How many messages the consumers of each queue hold."""
    asked = [(name, member) for name, members in zip(names, consumers, strict=True) for member in members]
    stores = [broker.key(keys.inflight(name, member.decode(errors="replace"))) for name, member in asked]
    held = dict.fromkeys(names, 0)
    for (name, _member), count in zip(asked, ask([("HLEN", store) for store in stores]), strict=True):
        held[name] += count
    return held


def _state(name: str, steps: Sequence[int], part: Sequence[Any], held: int, now_ms: int) -> QueueState:
    lengths, heads = part[: len(steps)], part[len(steps) : 2 * len(steps)]
    delayed, limited, dead, paused, consumers, _members = part[2 * len(steps) :]
    published = [ms for head in heads if head is not None and (ms := published_of(head)) is not None]
    return QueueState(
        name=name,
        waiting=dict(zip(steps, lengths, strict=True)),
        delayed=delayed,
        in_flight=held,
        dead=dead,
        oldest_s=max(now_ms - min(published), 0) / 1000 if published else None,
        consumers=consumers,
        paused=bool(paused),
        limited=int(limited or 0),
    )


def published_of(raw: bytes) -> int | None:
    """When a message was published (Unix ms), if it tells."""
    try:
        tag = envelope.parse(raw).properties.delivery_tag
    except DecodeError:
        return None
    return published_ms(tag) if isinstance(tag, str) else None
