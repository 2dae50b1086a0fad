"""Which task came of which: the tree of a result, and as a graph Celery's `DependencyGraph`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from graphlib import TopologicalSorter
from typing import Any

from opsq.exceptions import IncompleteStream


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
        return len(self.adjacent)

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


class Trees:
    """The part of a result that is about the tasks which came of its own."""

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, Any]]:
        """This result and those of all tasks that came of it: (parent, result)."""
        stack: deque[tuple[Any, Any]] = deque([(None, self)])
        while stack:
            parent, node = stack.popleft()
            yield parent, node
            if node.ready():
                stack.extend((node, child) for child in node.children or ())
            elif not intermediate:
                raise IncompleteStream("a task of the tree has not ended yet")

    def collect(self, intermediate: bool = False, **options: Any) -> Iterator[tuple[Any, Any]]:
        """Each result of the tree with its value, waiting for it."""
        for _parent, node in self.iterdeps(intermediate=intermediate):
            yield node, node.get(**options)

    def build_graph(self, intermediate: bool = False, formatter: Any = None) -> DependencyGraph:
        """The tree of tasks that came of this one."""
        graph = DependencyGraph(formatter=formatter)
        for parent, node in self.iterdeps(intermediate=intermediate):
            graph.add_arc(node)
            if parent is not None:
                graph.add_edge(parent, node)
        return graph

    @property
    def graph(self) -> DependencyGraph:
        """The tree of tasks that came of this one; all of them must have ended."""
        return self.build_graph()

    def get_leaf(self) -> Any:
        """The value of the last result of the tree."""
        value = None
        for _parent, node in self.iterdeps():
            value = node.get()
        return value
