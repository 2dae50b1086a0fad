"""The queues that an app declares (`task_queues`), however they are written: objects (kombu's too), names, mappings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from opsq.broker.outgoing import Limit
from opsq.config.settings import Settings
from opsq.exceptions import ImproperlyConfigured, QueueNotFound
from opsq.protocol.routing import BROADCAST, TYPES, Binding

#: How long senders wait for room in a queue whose overflow is `block`, unless it says otherwise (seconds).
OVERFLOW_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Declared:
    """A queue: how it is bound first, and how besides; `alias`: another name that it is known by."""

    name: str
    exchange: str
    exchange_type: str
    routing_key: str
    limit: Limit | None = None
    more: tuple[Binding, ...] = ()
    alias: str | None = None

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """All of its bindings."""
        return (Binding(self.exchange, self.routing_key, self.exchange_type), *self.more)

    @property
    def is_broadcast(self) -> bool:
        """Whether each worker gets a copy of what is sent to it."""
        return self.exchange_type == "fanout"

    def own_of(self, node: str) -> str:
        """The queue that holds a node's copies of a broadcast."""
        return f"{BROADCAST}{self.exchange}.{node}"


class DeclaredQueues:
    """All of an app's, as its settings say. Raises ImproperlyConfigured."""

    def __init__(self, settings: Settings, more: Iterable[str] = ()) -> None:
        """`more`: names of queues that are declared elsewhere than in the settings."""
        self.default = str(settings.task_default_queue)
        self.default_key = str(settings.task_default_routing_key or self.default)
        self._exchange = str(settings.task_default_exchange or self.default)
        self._type = str(settings.task_default_exchange_type or "direct")
        self.create_missing = bool(settings.task_create_missing_queues)
        self.by_name: dict[str, Declared] = {}
        for queue in self._read(settings.task_queues):
            self.by_name[queue.name] = queue
        for name in more:
            self.by_name.setdefault(name, self._queue(name))
        self._aliases = {queue.alias: queue for queue in self.by_name.values() if queue.alias}

    def find(self, queue: Any) -> Declared:
        """By a name or an alias, or an object; one that is not declared is made up if that is allowed.

        Raises QueueNotFound.
        """
        if not isinstance(queue, str):
            return self._queue(queue)
        found = self.known(queue)
        if found is None and not self.create_missing:
            raise QueueNotFound(f"Queue {queue!r} missing from task_queues")
        return found or Declared(queue, queue, "direct", queue)

    def known(self, name: str) -> Declared | None:
        """By its name or alias, if it is declared."""
        return self._aliases.get(name) or self.by_name.get(name)

    def bindings(self, queue: str) -> tuple[Binding, ...]:
        """How a queue is bound, declared or not."""
        found = self.by_name.get(queue)
        return (Binding(queue, queue),) if found is None else found.bindings

    def on(self, exchange: str) -> list[str]:
        """The queues that are declared on an exchange and hold what comes there."""
        bound = [(queue.name, each) for queue in self.by_name.values() for each in queue.bindings]
        return list(dict.fromkeys(name for name, each in bound if each.exchange == exchange and each.type != "fanout"))

    def bound_to(self, exchange: str) -> Binding | None:
        """The first binding that is declared on an exchange."""
        bound = (each for queue in self.by_name.values() for each in queue.bindings)
        return next((each for each in bound if each.exchange == exchange), None)

    @property
    def limits(self) -> dict[str, Limit]:
        """The limits of those that have one, by name."""
        return {name: queue.limit for name, queue in self.by_name.items() if queue.limit is not None}

    def _read(self, given: Any) -> Iterable[Declared]:
        if not given:
            return [Declared(self.default, self._exchange, self._type, self.default_key)]
        if isinstance(given, Mapping):
            told = [(name, {} if options is None else options) for name, options in given.items()]
            return [self._queue({"name": name, **each} if isinstance(each, Mapping) else each) for name, each in told]
        return [self._queue(each) for each in given]

    def _queue(self, given: Any) -> Declared:
        if isinstance(given, str):
            return Declared(given, given, "direct", given)
        if isinstance(given, Mapping):
            told: Mapping[str, Any] = given
            own_key = told.get("routing_key") or told.get("binding_key") or str(told["name"])
        else:
            names = ("name", "exchange", "routing_key", "alias", "bindings", "max_length", "queue_arguments")
            told = {name: getattr(given, name, None) for name in names}
            told |= {name: getattr(given, name) for name in ("overflow", "overflow_timeout") if hasattr(given, name)}
            own_key = told["routing_key"] or self.default_key
        name = str(told["name"])
        exchange, kind = self._exchange_of(told.get("exchange"), told.get("exchange_type"))
        more = tuple(self._binding(each) for each in told.get("bindings") or ())
        return Declared(name, exchange, kind, str(own_key), _limit(name, told), more, told.get("alias"))

    def _exchange_of(self, given: Any, kind: Any = None) -> tuple[str, str]:
        """Name and type of an exchange; without a name it is the app's default one."""
        name = getattr(given, "name", given)
        if not name:
            return self._exchange, self._type
        kind = str(kind or getattr(given, "type", None) or "direct")
        if kind not in TYPES:
            raise ImproperlyConfigured(
                f"cannot use the exchange {name!r} of the type {kind!r}", why=f"on Redis there are {', '.join(TYPES)}"
            )
        return str(name), kind

    def _binding(self, given: Any) -> Binding:
        exchange, kind = self._exchange_of(given.exchange)
        return Binding(exchange, str(given.routing_key or ""), kind)


def _limit(name: str, told: Mapping[str, Any]) -> Limit | None:
    """How many messages a queue may hold: ours, or kombu's `x-max-length`."""
    arguments = told.get("queue_arguments") or {}
    length = told.get("max_length") or arguments.get("x-max-length")
    overflow = told.get("overflow") or "refuse"
    wait_s = told.get("overflow_timeout", OVERFLOW_TIMEOUT_S)
    if not length:
        return None
    numbers = type(length) is int and length > 0 and (wait_s is None or isinstance(wait_s, int | float))
    if overflow not in ("refuse", "block") or not numbers:
        raise ImproperlyConfigured(
            f"cannot limit the queue {name!r} to max_length {length!r}, overflow {overflow!r} (timeout {wait_s!r})",
            why="a length is a whole number above 0, overflow is refuse or block, a timeout seconds or None",
        )
    return Limit(length, wait_s if overflow == "block" else 0)
