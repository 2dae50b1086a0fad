"""Which queue, exchange, routing key and further options a call gets: by `task_queues`, `task_routes` and itself."""

from __future__ import annotations

import fnmatch
import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from opsq.app.declared import DeclaredQueues
from opsq.broker.outgoing import Address, Limit
from opsq.config.settings import Settings
from opsq.exceptions import ImproperlyConfigured
from opsq.protocol.routing import Binding

Rule = Callable[..., Any]
_DESTINATION = ("queue", "exchange", "routing_key", "exchange_type")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a call goes: into a queue, or to an address, an exchange whose bindings say to which queues.

    `exchange` and `routing_key` are what its message says; `options` what a route adds.
    """

    queue: str = ""
    exchange: str = ""
    routing_key: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    limit: Limit | None = None
    address: Address | None = None

    @property
    def shown(self) -> str:
        """For people."""
        return self.queue or f"{self.exchange}/{self.routing_key}"


class Routes:
    """The routing table of an app, as its settings say."""

    def __init__(self, settings: Settings) -> None:
        self.declared = DeclaredQueues(settings)
        rules = settings.task_routes
        self.rules = [_rule(rule) for rule in (rules if isinstance(rules, list | tuple) else (rules,)) if rule]
        #: True when the table alone decides: the same name always goes to the same place.
        self.fixed = all(isinstance(rule, _Map) for rule in self.rules)

    def route(
        self, name: str, options: Mapping[str, Any], args: Any = (), kwargs: Any = None, task: Any = None
    ) -> Destination:
        """The destination of a call. What the call says wins over the table. Raises QueueNotFound."""
        added = self._look_up(name, args, kwargs, options, task)
        said = {**added, **{key: options[key] for key in _DESTINATION if options.get(key) is not None}}
        rest = {key: value for key, value in added.items() if key not in _DESTINATION}
        queue, exchange, key, kind = (said.get(each) for each in _DESTINATION)
        if exchange is not None and not isinstance(exchange, str):
            exchange, kind = exchange.name, kind or getattr(exchange, "type", None)
        known = self.declared.find(queue or self.declared.default) if queue or not exchange else None
        bound = self.declared.bound_to(str(exchange)) if known is None else known.bindings[0]
        kind = kind or (bound.type if bound is not None else None)
        if known is not None and kind == "direct" and not (exchange and key):
            return Destination(known.name, "", known.name, rest, known.limit)
        if bound is not None and (known is not None or kind == "fanout"):
            exchange, key = exchange or bound.exchange, key or bound.routing_key
        exchange, key = str(exchange), str(key or "")
        named = known.name if known is not None and Binding(exchange, key) in known.bindings else ""
        address = Address(exchange, key, kind, self.declared.limits, named)
        return Destination("", address.exchange, address.routing_key, rest, address=address)

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
