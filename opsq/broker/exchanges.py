"""How queues are bound to exchanges: said in Redis for all, and asked there where a message goes.

The bindings of all who ever bound a queue are there, Celery's too. They are asked at each call: a queue that was bound
a moment ago gets it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from opsq.broker.outgoing import Address, Command, Outgoing
from opsq.datastore import keys
from opsq.datastore.priorities import Priorities
from opsq.events.event import Channels
from opsq.exceptions import ImproperlyConfigured, QueueNotFound
from opsq.protocol import writing
from opsq.protocol.delivery_tag import new_delivery_tag
from opsq.protocol.routing import BROADCAST, Binding, Bound, read_bindings


class Declarations(Protocol):
    """What an app says of its queues."""

    def bindings(self, queue: str) -> Sequence[Binding]:
        """How a queue is bound."""

    def on(self, exchange: str) -> list[str]:
        """The queues that it binds to an exchange and that hold what comes there."""


class _NoneDeclared:
    """Where there is no app: each queue is bound to an exchange of its name."""

    def bindings(self, queue: str) -> Sequence[Binding]:
        return [Binding(queue, queue)]

    def on(self, _exchange: str) -> list[str]:
        return []


NONE_DECLARED = _NoneDeclared()


class Asking(Protocol):
    """What can ask Redis for bindings: a Broker."""

    priorities: Priorities
    channels: Channels

    @property
    def declared(self) -> Declarations:
        """What the app declares of queues."""

    def key(self, name: str) -> str:
        """A key's name with the global prefix."""

    def make_known(self, queue: str, priority: int) -> str:
        """The list of a queue's messages; once in each process the queue is made known."""

    def ask_all(self, commands: Sequence[Command]) -> list[Any]:
        """Commands and their answers. Raises errors of Redis."""


def announcement(queue: str, bindings: Sequence[Binding], key_prefix: str, priorities: Priorities) -> list[Command]:
    """What makes a queue known: Celery's bindings, and our set of queues."""
    found: list[Command] = [("SADD", key_prefix + keys.QUEUES, queue)]
    for each in bindings or [Binding(queue, queue)]:
        member = keys.binding_member(each.routing_key, queue, priorities.separator, each.pattern)
        found += [
            ("SADD", key_prefix + name, member)
            for name in (keys.binding(each.exchange), keys.binding_permanent(each.exchange))
        ]
    return found


def spread(broker: Asking, messages: Sequence[Outgoing]) -> tuple[list[Outgoing], list[int]]:
    """The same messages with each at its queue, or on its channel: one that goes to several is there several times.

    And of each of them which of the given ones it is. Raises QueueNotFound for one that goes nowhere, errors of Redis.
    """
    names = list(dict.fromkeys(message.address.exchange for message in messages if message.address is not None))
    for name in names:
        for queue in broker.declared.on(name):
            broker.make_known(queue, 0)
    members = broker.ask_all([("SMEMBERS", broker.key(keys.binding(name))) for name in names])
    separator = broker.priorities.separator
    tables = {name: read_bindings(found, separator) for name, found in zip(names, members, strict=True)}
    copies: list[Outgoing] = []
    numbers: list[int] = []
    for number, message in enumerate(messages):
        address = message.address
        found = [message] if address is None else _copies(broker, message, address, tables[address.exchange])
        copies += found
        numbers += [number] * len(found)
    return copies, numbers


def _copies(broker: Asking, message: Outgoing, address: Address, table: Sequence[Bound]) -> list[Outgoing]:
    if address.type == "fanout" or (address.type is None and any(each.queue.startswith(BROADCAST) for each in table)):
        return _on_channels(broker, message, address, table)
    bound = {each.queue for each in table if each.takes(address.routing_key)}
    queues = sorted({*bound, address.queue} - {""})
    if not queues:
        raise _unbound(address)
    if len(queues) > 1 and message.claim is not None:
        raise _not_unique(address, f"it reaches {len(queues)} queues")
    found = []
    for number, queue in enumerate(queues):
        # Celery's workers keep what they hold by its tag: copies must not share it.
        raw = message.raw if number == 0 else writing.changed(message.raw, {}, _fresh_tag())
        limit = address.limits.get(queue)
        found.append(msgspec.structs.replace(message, queue=queue, raw=raw, limit=limit, address=None))
    return found


def _on_channels(broker: Asking, message: Outgoing, address: Address, table: Sequence[Bound]) -> list[Outgoing]:
    """A broadcast. On Redis its listeners hear the key that they are bound with, whatever a fanout is elsewhere."""
    if message.claim is not None:
        raise _not_unique(address, "each worker gets a copy")
    told = {each.routing_key for each in table}
    routing_keys = [address.routing_key] if address.routing_key in told or not told else sorted(told)
    return [
        msgspec.structs.replace(message, channel=broker.channels.name(address.exchange, key), due_ms=None, address=None)
        for key in routing_keys
    ]


def check_heard(broadcasts: Sequence[Outgoing], heard: Sequence[int]) -> None:
    """Raise QueueNotFound if nobody has heard one of these; how many have heard each stands beside them."""
    listeners: Counter[bytes] = Counter()
    for message, count in zip(broadcasts, heard, strict=True):
        listeners[message.raw] += count
    for message in broadcasts:
        if not listeners[message.raw]:
            raise QueueNotFound(
                f"cannot send the task to {message.channel}",
                why="no worker listens to this broadcast now, and none would get it later",
                hint="start a worker whose task_queues have it",
            )


def _fresh_tag() -> dict[str, str]:
    return {"delivery_tag": new_delivery_tag()}


def _unbound(address: Address) -> QueueNotFound:
    error: QueueNotFound = QueueNotFound(
        f"cannot send the task to exchange {address.exchange!r} with key {address.routing_key!r}",
        why="no queue is bound so, and the message would be lost",
        hint="start a worker whose task_queues bind a queue so, or declare it here too",
    )
    return error


def _not_unique(address: Address, why: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(
        f"cannot send a unique or debounced call to exchange {address.exchange!r}",
        why=f"{why}, and a key is one message's",
        hint="send it to a queue",
    )
