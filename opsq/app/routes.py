"""Which queue, exchange, routing key and further options a call gets: by `task_queues`, `task_routes` and itself.

Queues and exchanges may be kombu's objects (they are read by their attributes), names, or mappings.
"""

from __future__ import annotations

import fnmatch
import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from opsq.broker.outgoing import Limit
from opsq.config.settings import Settings
from opsq.exceptions import ImproperlyConfigured, QueueNotFound

Rule = Callable[..., Any]
_DESTINATION = ("queue", "exchange", "routing_key")
#: How long senders wait for room in a queue whose overflow is `block`, unless it says otherwise (seconds).
OVERFLOW_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue and how it is bound to its exchange."""

    name: str
    exchange: str
    exchange_type: str
    routing_key: str
    limit: Limit | None = None


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a call goes. `exchange` and `routing_key` are what its message says; `options` what a route adds."""

    queue: str
    exchange: str = ""
    routing_key: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    limit: Limit | None = None


class Routes:
    """The routing table of an app, as its settings say."""

    def __init__(self, settings: Settings) -> None:
        self.default = str(settings.task_default_queue)
        self.create_missing = bool(settings.task_create_missing_queues)
        self.queues = _queues(settings)
        rules = settings.task_routes
        self.rules = [_rule(rule) for rule in (rules if isinstance(rules, list | tuple) else (rules,)) if rule]
        #: True when the table alone decides: the same name always goes to the same place.
        self.fixed = all(isinstance(rule, _Map) for rule in self.rules)

    def consumed(self) -> list[str]:
        """The queues that a worker consumes unless told otherwise."""
        return [name for name, queue in self.queues.items() if queue.exchange_type != "fanout"]

    def route(
        self, name: str, options: Mapping[str, Any], args: Any = (), kwargs: Any = None, task: Any = None
    ) -> Destination:
        """The destination of a call. What the call says wins over the table. Raises QueueNotFound."""
        added = self._look_up(name, args, kwargs, options, task)
        said = {**added, **{key: options[key] for key in _DESTINATION if options.get(key) is not None}}
        rest = {key: value for key, value in added.items() if key not in _DESTINATION}
        queue, exchange, routing_key = (said.get(key) for key in _DESTINATION)
        exchange = getattr(exchange, "name", exchange)
        if queue is None and exchange and routing_key:
            return self._by_binding(exchange, routing_key, rest)
        known = self.find(self.default if queue is None else queue)
        return Destination(known.name, "", known.name, rest, known.limit)

    def find(self, queue: Any) -> Queue:
        """A queue by its name or as an object; one that is not in `task_queues` is made up if that is allowed."""
        if not isinstance(queue, str):
            return _queue(queue)
        if queue not in self.queues and not self.create_missing:
            raise QueueNotFound(f"Queue {queue!r} missing from task_queues")
        return self.queues.get(queue) or Queue(queue, queue, "direct", queue)

    def _by_binding(self, exchange: str, routing_key: str, rest: Mapping[str, Any]) -> Destination:
        """A call that names an exchange and a key goes to the queue that is bound so."""
        for queue in self.queues.values():
            if queue.exchange == exchange and queue.exchange_type == "direct" and queue.routing_key == routing_key:
                return Destination(queue.name, exchange, routing_key, rest, queue.limit)
        if exchange == routing_key:  # how a queue that is made up would be bound
            known = self.find(exchange)
            return Destination(known.name, "", routing_key, rest, known.limit)
        raise QueueNotFound(f"no queue of task_queues is bound to exchange {exchange!r} with key {routing_key!r}")

    def _look_up(self, name: str, args: Any, kwargs: Any, options: Mapping[str, Any], task: Any) -> dict[str, Any]:
        for rule in self.rules:
            found = rule(name, args, kwargs, options, task=task)
            if found is not None:
                return {"queue": found} if isinstance(found, str) else dict(found)
        return {}


class _Map:
    """A table of names, name patterns (`*` or compiled) and where they go; exact names first."""

    def __init__(self, table: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> None:
        rows = list(table.items() if isinstance(table, Mapping) else table)
        self.names = {key: value for key, value in rows if isinstance(key, str) and "*" not in key}
        self.patterns = [
            (re.compile(fnmatch.translate(key)) if isinstance(key, str) else key, value)
            for key, value in rows
            if not isinstance(key, str) or "*" in key
        ]

    def __call__(self, name: str, *_args: Any, **_kwargs: Any) -> Any:
        if name in self.names:
            return self.names[name]
        return next((value for pattern, value in self.patterns if pattern.match(name)), None)


def _rule(rule: Any) -> Rule:
    """One entry of `task_routes`: a table, a function, the dotted name of one, or an object with `route_for_task`."""
    if isinstance(rule, Mapping | list | tuple):
        return _Map(rule)
    if isinstance(rule, str):
        rule = _import_rule(rule)
    if hasattr(rule, "route_for_task"):
        router = rule() if isinstance(rule, type) else rule
        return lambda name, args, kwargs, _options, **_more: router.route_for_task(name, args, kwargs)
    found: Rule = rule
    return found


def _import_rule(name: str) -> Any:
    module, _, attribute = name.replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ImproperlyConfigured(f"cannot use {name!r} of task_routes", why=str(error)) from error


def _queues(settings: Settings) -> dict[str, Queue]:
    given = settings.task_queues
    if not given:
        name = str(settings.task_default_queue)
        exchange, key = settings.task_default_exchange, settings.task_default_routing_key
        return {name: Queue(name, str(exchange), str(settings.task_default_exchange_type), str(key))}
    rows = (
        [{"name": name, **(options or {})} for name, options in given.items()] if isinstance(given, Mapping) else given
    )
    return {queue.name: queue for queue in map(_queue, rows)}


def _queue(given: Any) -> Queue:
    """A queue from a name, a mapping or an object with kombu's attributes."""
    if isinstance(given, str):
        return Queue(given, given, "direct", given)
    if isinstance(given, Mapping):
        told: Mapping[str, Any] = given
    else:
        names = ("name", "exchange", "routing_key", "max_length", "queue_arguments")
        told = {name: getattr(given, name, None) for name in names}
    name, exchange, key, kind = str(told["name"]), told.get("exchange"), told.get("routing_key"), None
    if told is given:
        kind = told.get("exchange_type")
    kind = kind or getattr(exchange, "type", None) or "direct"
    exchange = getattr(exchange, "name", exchange)
    return Queue(name, str(exchange or name), str(kind), str(key or name), _limit(name, told))


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
