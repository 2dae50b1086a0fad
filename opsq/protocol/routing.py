"""Queues, exchanges and how they are bound, with kombu's names and its notation on the wire.

A message goes to an exchange with a routing key; the bindings of the exchange say to which queues. `direct`: those
bound with that key; `topic`: those whose key fits, word by word between dots (`*` one word, `#` any number); `fanout`:
every worker that listens gets a copy.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

TYPES = ("direct", "topic", "fanout")
#: What kombu's exchanges and queues say of themselves unless they are told otherwise.
_OF_EXCHANGES = {"durable": True, "auto_delete": False, "passive": False, "delivery_mode": None, "arguments": None}
_OF_QUEUES = {
    **dict.fromkeys(("queue_arguments", "binding_arguments", "consumer_arguments", "expires", "message_ttl")),
    **dict.fromkeys(("max_length", "max_length_bytes", "max_priority")),
    **dict.fromkeys(("exclusive", "auto_delete", "no_ack", "no_declare"), False),
    "durable": True,
}
#: What the queues of broadcasts begin with: kombu's, and ours.
BROADCAST = "bcast."
_DOT = r"\."
_WILDCARDS = {"*": r"[^\.]+", "#": r".*?"}


class Binding(NamedTuple):
    """A queue is bound to an exchange of this type, with this key."""

    exchange: str
    routing_key: str
    type: str = "direct"

    @property
    def pattern(self) -> str:
        """What stands in Redis for the key of a topic, as kombu writes it (a regular expression); else nothing."""
        return topic_pattern(self.routing_key) if self.type == "topic" else ""


def topic_pattern(key: str) -> str:
    """The regular expression for a binding key, character for character kombu's: all who bind write the same member."""
    escaped = "".join(each if each.isalnum() or each in ".#*" else f"\\{each}" for each in key)
    words = [_WILDCARDS.get(word, word) for word in escaped.split(".")]
    return f"^{_DOT.join(words)}$"


class Bound(NamedTuple):
    """A member of a binding set, read."""

    routing_key: str
    pattern: str
    queue: str

    def takes(self, routing_key: str) -> bool:
        """Whether a message with this key goes into its queue."""
        return bool(_compiled(self.pattern).match(routing_key)) if self.pattern else self.routing_key == routing_key


_compiled = lru_cache(maxsize=500)(re.compile)


def read_bindings(members: Iterable[bytes], separator: str) -> list[Bound]:
    """What stands in the binding set of an exchange; members that nobody of ours has written so are passed by."""
    parts = [member.decode(errors="replace").split(separator) for member in sorted(members)]
    return [Bound(*part) for part in parts if len(part) == 3]


class Exchange:
    """An exchange by its name and type (`direct`, `topic` or `fanout`). Options of other brokers have no effect."""

    def __init__(self, name: str = "", type: str = "direct", **options: Any) -> None:
        if type not in TYPES:
            raise ValueError(f"an exchange is {', '.join(TYPES)}, not {type!r}")
        self.name, self.type, self.options = name, type, options

    def __getattr__(self, name: str) -> Any:
        try:
            return {**_OF_EXCHANGES, **self.__dict__["options"]}[name]
        except KeyError:
            raise AttributeError(f"an exchange has no {name!r}") from None

    def __repr__(self) -> str:
        return f"Exchange({self.name!r}, {self.type!r})"

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Exchange) and (self.name, self.type) == (other.name, other.type)

    def __hash__(self) -> int:
        return hash((self.name, self.type))


class binding:
    """That a queue is bound to an exchange with a key: for `Queue(bindings=[...])`."""

    def __init__(self, exchange: Exchange | str | None = None, routing_key: str = "", **options: Any) -> None:
        self.exchange, self.routing_key, self.options = _exchange(exchange), routing_key, options

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, binding):
            return NotImplemented
        return (self.exchange, self.routing_key) == (other.exchange, other.routing_key)

    def __hash__(self) -> int:
        return hash((self.exchange, self.routing_key))

    def __repr__(self) -> str:
        return f"binding({self.exchange!r}, {self.routing_key!r})"


class Queue:
    """A queue, and how it is bound. Without an exchange it is bound to the app's default one.

    `alias`: another name under which routes and `-Q` know it. `max_length`, `overflow`, `overflow_timeout` limit it.
    Options of other brokers (`durable`, `queue_arguments`, ...) are kept; those that Celery on Redis has no use for
    have no effect.
    """

    def __init__(
        self,
        name: str = "",
        exchange: Exchange | str | Sequence[binding] | None = None,
        routing_key: str = "",
        bindings: Iterable[binding] = (),
        alias: str | None = None,
        max_length: int | None = None,
        queue_arguments: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if isinstance(exchange, list | tuple | set):
            bindings, exchange = [*exchange, *bindings], None
        self.name, self.exchange, self.routing_key = name, _exchange(exchange), routing_key
        self.bindings, self.alias = list(bindings), alias
        self.max_length, self.queue_arguments, self.options = max_length, queue_arguments, options

    def __getattr__(self, name: str) -> Any:
        try:
            return {**_OF_QUEUES, **self.__dict__["options"]}[name]
        except KeyError:
            raise AttributeError(f"a queue has no {name!r}") from None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Queue):
            return NotImplemented
        own = all(
            getattr(self, name) == getattr(other, name) for name in ("name", "exchange", "routing_key", "bindings")
        )
        return own and {**_OF_QUEUES, **self.options} == {**_OF_QUEUES, **other.options}

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.exchange!r}, {self.routing_key!r})"


class Broadcast(Queue):
    """Every worker that consumes it gets a copy of each message sent to it by its name, or to its exchange."""

    def __init__(
        self,
        name: str | None = None,
        queue: str | None = None,
        unique: bool = False,
        exchange: Exchange | None = None,
        alias: str | None = None,
        **options: Any,
    ) -> None:
        own = f"{queue or BROADCAST[:-1]}.{uuid.uuid4()}" if unique or not queue else queue
        told = Exchange(name or own, "fanout") if exchange is None else exchange
        super().__init__(own, told, alias=alias or name, **options)


def _exchange(given: Any) -> Any:
    return Exchange(given) if isinstance(given, str) else given
