"""Stamps: headers that a caller puts on all tasks of a workflow at once, by name or through a visitor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class StampingVisitor(ABC):
    """Says which stamps each part of a workflow gets; what a method returns is merged with what is given.

    A dictionary may hold `stamped_headers`, the names that count as stamps; without it all of its names do.
    """

    @abstractmethod
    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        """The stamps of one task."""

    def on_group_start(self, group: Any, **headers: Any) -> dict[str, Any]:  # noqa: ARG002 (to be overridden)
        """The stamps of all tasks of a group."""
        return {}

    def on_group_end(self, group: Any, **headers: Any) -> None:  # noqa: B027 (to be overridden)
        """A group is done."""

    def on_chain_start(self, chain: Any, **headers: Any) -> dict[str, Any]:  # noqa: ARG002
        """The stamps of all tasks of a chain."""
        return {}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:  # noqa: B027
        """A chain is done."""

    def on_chord_header_start(self, sig: Any, **headers: Any) -> dict[str, Any]:
        """The stamps of all tasks of a chord's header."""
        return self.on_group_start(sig.header_group(), **headers)

    def on_chord_header_end(self, sig: Any, **headers: Any) -> None:
        """A chord's header is done."""
        self.on_group_end(sig.header_group(), **headers)

    def on_chord_body(self, sig: Any, **headers: Any) -> dict[str, Any]:  # noqa: ARG002
        """The stamps of a chord's body."""
        return {}

    def on_callback(self, callback: Any, **headers: Any) -> dict[str, Any]:  # noqa: ARG002
        """The stamps of a task that is linked."""
        return {}

    def on_errback(self, errback: Any, **headers: Any) -> dict[str, Any]:  # noqa: ARG002
        """The stamps of a task that is linked for errors."""
        return {}


def merged(
    options: Mapping[str, Any],
    headers: Mapping[str, Any],
    visited: Mapping[str, Any] | None,
    append: bool,
    own: bool = True,
) -> dict[str, Any]:
    """Stamps that are given, those of a visitor, and (`own`) those that the options hold already.

    Of two values under one name the first one stays, or with `append` both do, as a list.
    """
    found = dict(headers)
    found["stamped_headers"] = list(headers.get("stamped_headers", headers))
    if visited is not None:
        names = visited.get("stamped_headers", [name for name in visited if name != "stamped_headers"])
        _add(found, {**visited, "stamped_headers": list(names)}, append, newer_wins=True)
    if own:
        names = list(dict.fromkeys([*found["stamped_headers"], *(options.get("stamped_headers") or ())]))
        found["stamped_headers"] = names
        _add(found, {name: options[name] for name in names if name in options}, append, newer_wins=False)
    found["stamped_headers"] = list(dict.fromkeys(found["stamped_headers"]))
    return found


def _add(found: dict[str, Any], more: Mapping[str, Any], append: bool, newer_wins: bool) -> None:
    for name, value in more.items():
        if name == "stamped_headers":
            found[name] = [*found[name], *value]
        elif name not in found or found[name] == value:
            found[name] = value
        elif append:
            found[name] = [*_listed(found[name]), *_listed(value)]
        elif newer_wins:
            found[name] = value


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | set) else [value]
