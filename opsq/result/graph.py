"""Which task came of which, as a graph: Celery's `DependencyGraph`."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import TopologicalSorter
from typing import Any


class DependencyGraph:
    """Nodes, and for each those that came of it. Iterating gives the nodes."""

    def __init__(self, formatter: Any = None) -> None:
        """`formatter`: a function that makes a node's text in `to_dot`."""
        self.formatter = formatter
        self.adjacent: dict[Any, list[Any]] = {}

    def add_arc(self, obj: Any) -> None:
        """Add a node, if it is not there."""
        self.adjacent.setdefault(obj, [])

    def add_edge(self, A: Any, B: Any) -> None:
        """B came of A."""
        self.adjacent[A].append(B)

    def __getitem__(self, obj: Any) -> list[Any]:
        return self.adjacent[obj]

    def __len__(self) -> int:
        return sum(len(found) for found in self.adjacent.values())

    def __contains__(self, obj: Any) -> bool:
        return obj in self.adjacent

    def __iter__(self) -> Iterator[Any]:
        return iter(self.adjacent)

    def items(self) -> list[tuple[Any, list[Any]]]:
        """Each node and those that came of it."""
        return list(self.adjacent.items())

    def edges(self) -> list[Any]:
        """The nodes of which something came."""
        return [node for node, found in self.adjacent.items() if found]

    def topsort(self) -> list[Any]:
        """The nodes, each after all that came of it."""
        return list(TopologicalSorter(self.adjacent).static_order())

    def to_dot(self, fh: Any, formatter: Any = None) -> None:
        """Write it for Graphviz."""
        shown = formatter or self.formatter or str
        fh.write("digraph dependencies {\n")
        for node, found in self.adjacent.items():
            if not found:
                fh.write(f'  "{shown(node)}"\n')
            for child in found:
                fh.write(f'  "{shown(node)}" -> "{shown(child)}"\n')
        fh.write("}\n")
