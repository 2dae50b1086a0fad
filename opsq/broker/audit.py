"""The books of the queues: what was taken, what has come of it, what is there. The turn keeps them.

What waits is not counted on its way in (a plain LPUSH stays one command): the books begin when a message is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opsq.broker.broker import LUA, Broker
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.datastore.scripts import Script

AUDIT = Script(LUA / "audit.lua")


@dataclass(frozen=True, slots=True)
class Balance:
    """One queue at one instant; all are numbers of messages. Each try of a retried task is a message of its own.

    `taken`: by workers of opsq, since the books began; `moved`: of these, given back or put away for later; `ended`: by
    what has come of them; `known`: how many are missing that an operator knows of; `letters`: dead letters that are
    still there.
    """

    queue: str
    taken: int
    moved: int
    known: int
    in_flight: int
    delayed: int
    letters: int
    waiting: int
    limited: int
    ended: Mapping[str, int]

    @property
    def sent(self) -> int:
        """All that came into the queue, as far as it was taken or is there."""
        return self.taken - self.moved + self.waiting + self.delayed + self.limited

    @property
    def missing(self) -> int:
        """Messages that were taken and of which nothing is known; negative: more have ended than were taken."""
        return self.taken - self.moved - sum(self.ended.values()) - self.in_flight - self.known


def balances(broker: Broker, queues: Sequence[str]) -> list[Balance]:
    """The books of these queues; each is read in one step, so that it balances while work goes on."""
    with errors(broker.url):
        return [_balance(broker, queue) for queue in queues]


def _balance(broker: Broker, queue: str) -> Balance:
    places = [keys.totals(queue), keys.consumers(queue), keys.delayed(queue), keys.dead(queue), keys.lane_facts(queue)]
    script_keys = [broker.key(each) for each in (*places, *broker.priorities.lists(queue))]
    answer: Any = AUDIT.run(broker.client, script_keys, [broker.key(keys.inflight(queue, ""))])
    states = {state.decode(): int(count) for state, count in zip(answer[8::2], answer[9::2], strict=True)}
    taken, moved, known, in_flight, delayed, letters, waiting, limited = answer[:8]
    return Balance(queue, taken, moved, known, in_flight, delayed, letters, waiting, limited, states)


def accept(broker: Broker, balance: Balance) -> None:
    """Note that what is missing is known: from now on only what is missing besides counts."""
    with errors(broker.url):
        broker.client.hincrby(broker.key(keys.totals(balance.queue)), "known", balance.missing)


def stores(broker: Broker) -> dict[str, set[str]]:
    """The consumers that have an in-flight store, by queue; looks through all keys of the database."""
    start = broker.key(keys.inflight("\0", "")).partition("\0")[0]
    found: dict[str, set[str]] = {}
    with errors(broker.url):
        for key in broker.client.scan_iter(match=f"{keys.as_pattern(start)}*", count=1000):
            queue, _, consumer = key.decode(errors="replace").removeprefix(start).partition("}:")
            found.setdefault(queue, set()).add(consumer)
    return found


def unowned(broker: Broker, queue: str) -> dict[str, int]:
    """Consumers that hold messages of a queue and are not registered, and how many: nobody would take these over."""
    found = sorted(stores(broker).get(queue, ()))
    with errors(broker.url):
        members: Any = broker.client.zrange(broker.key(keys.consumers(queue)), 0, -1)
        lost = [name for name in found if name.encode() not in members]
        counts: list[Any] = [broker.client.hlen(broker.key(keys.inflight(queue, name))) for name in lost]
    return dict(zip(lost, counts, strict=True))
