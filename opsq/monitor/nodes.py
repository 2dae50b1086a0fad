"""The workers that are heard of by their events: Celery's, which keep no record in Redis."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from opsq.monitor.record import NAME_LIMIT, Event

#: Most nodes that are remembered.
NODES_LIMIT = 2_000
#: A worker counts as alive for this many of its own beats (wire section 6); of how long, if it does not say (seconds).
_BEATS, _DEFAULT_BEAT_S = 2.0, 10.0
#: So many beats long a worker is new.
_NEW_BEATS = 3
#: For how long one that has gone is still shown (seconds).
_REMEMBERED_S = 3_600.0


@dataclass(slots=True)
class Node:
    """A worker as its latest event told it; points in time are Unix seconds."""

    name: str
    last: float = 0.0
    beat_s: float = _DEFAULT_BEAT_S
    gone: bool = False
    pid: int | None = None
    active: int | None = None
    processed: int | None = None
    load: list[float] = field(default_factory=list)
    software: str = ""
    #: How often it was heard of since it came.
    beats: int = 0

    def alive(self, now: float) -> bool:
        """Whether it has been heard of lately."""
        return not self.gone and now - self.last < self.beat_s * _BEATS + 1.0

    def described(self, now: float) -> dict[str, Any]:
        """The worker as scripts get it."""
        return {
            "node": self.name,
            "kind": "celery",
            "alive": self.alive(now),
            "pid": self.pid,
            "last_sign": self.last or None,
            "busy": self.active,
            "processed": self.processed,
            "load": self.load,
            "version": self.software or None,
        }


class Nodes:
    """All of them, by name. One thread writes, others read whole values."""

    def __init__(self) -> None:
        self._known: dict[str, Node] = {}

    def hear(self, event: Event, now: float) -> bool:
        """Take in what a worker says of itself; True when it is new (for some beats: it may not listen yet)."""
        name = (event.hostname or "")[:NAME_LIMIT]
        node = self._known.get(name)
        if node is None:
            self._make_room(now)
            node = self._known[name] = Node(name)
        node.beats = 1 if node.gone else node.beats + 1
        node.last, node.gone = now, event.type == "worker-offline"
        node.pid, node.active, node.processed = event.pid, event.active, event.processed
        if event.freq and 0 < event.freq < _REMEMBERED_S:
            node.beat_s = max(event.freq, node.beat_s if event.processed is None else 0.0)
        node.load = (event.loadavg or [])[:3]
        node.software = f"{event.sw_ident or ''} {event.sw_ver or ''}".strip()[:NAME_LIMIT]
        return node.beats <= _NEW_BEATS and not node.gone

    def all(self, now: float) -> list[Node]:
        """Those that live, and those that have gone within the last hour."""
        return sorted((n for n in list(self._known.values()) if now - n.last < _REMEMBERED_S), key=lambda n: n.name)

    def _make_room(self, now: float) -> None:
        if len(self._known) >= NODES_LIMIT:
            self._known = {node.name: node for node in self.all(now) if node.alive(now)}
        while len(self._known) >= NODES_LIMIT:
            self._known.pop(next(iter(self._known)))
