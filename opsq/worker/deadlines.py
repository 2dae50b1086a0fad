"""When the limits of what runs are reached: the first one at once, whatever their number."""

from __future__ import annotations

import heapq
from collections.abc import Container, Sized
from typing import Protocol

#: So many points of what has ended may be left for each number that runs, and in all, before they are cleared away.
LEFT_EACH, LEFT = 4, 64


class Numbers(Sized, Container[int], Protocol):
    """The numbers of what runs."""


class Deadlines:
    """Points of the monotonic clock (ns), each of a number; those of numbers that do not run count no more."""

    def __init__(self, running: Numbers) -> None:
        self._running = running
        self._points: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._points)

    def add(self, point_ns: int, number: int) -> None:
        """One more."""
        if len(self._points) > LEFT_EACH * len(self._running) + LEFT:
            self._points = [each for each in self._points if each[1] in self._running]
            heapq.heapify(self._points)
        heapq.heappush(self._points, (point_ns, number))

    def first(self) -> tuple[int, int] | None:
        """The first point and its number."""
        points = self._points
        while points and points[0][1] not in self._running:
            heapq.heappop(points)
        return points[0] if points else None

    def take(self, now_ns: int) -> tuple[int, int] | None:
        """The first one, if it is reached; it is then taken away."""
        first = self.first()
        return heapq.heappop(self._points) if first is not None and first[0] <= now_ns else None
