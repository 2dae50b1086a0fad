"""The workers as the monitor shows them: opsq's by their records, Celery's by their events."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from typing import Any

from opsq.broker import workers
from opsq.monitor.nodes import Node
from opsq.runtime import usage


def rows(records: Iterable[Mapping[str, Any]], nodes: Iterable[Node], now: float) -> list[dict[str, Any]]:
    """`records`: of opsq's live workers; `nodes`: whoever was heard of by events; `now`: Unix seconds."""
    heard = {node.name: node for node in nodes}
    found = []
    for record in records:
        node = heard.pop(str(record["node"]), None)
        found.append(_of_opsq(record, node.last if node else None, now))
    return found + [_of_celery(node.described(now)) for node in heard.values()]


def _of_opsq(record: Mapping[str, Any], heard: float | None, now: float) -> dict[str, Any]:
    children = [
        {**child, "runtime": max(now - child["since"], 0.0) if child.get("since") else None}
        for child in record["children"]
    ]
    return {
        **record,
        "kind": "opsq",
        "alive": True,
        "children": children,
        "busy": workers.busy(record),
        "last_sign": record.get("time") or heard,
        "memory_bytes": record.get("memory_bytes") or _memory_here(record),
        "load": record.get("load"),
    }


def _memory_here(record: Mapping[str, Any]) -> int | None:
    """What a worker of this machine and its children hold (bytes); None for one of another machine."""
    if record.get("host") != socket.gethostname() or not record.get("pid"):
        return None
    pids = (record["pid"], *(child["pid"] for child in record["children"] if child.get("pid")))
    return sum(usage.resident_bytes(pid) or 0 for pid in pids) or None


def _of_celery(told: Mapping[str, Any]) -> dict[str, Any]:
    """A worker of Celery's says less: it runs tasks of queues that we do not know."""
    blank = ("host", "since", "pool", "concurrency", "queues", "tasks", "memory_bytes")
    host = str(told["node"]).partition("@")[2]
    return {**dict.fromkeys(blank), **told, "id": told["node"], "host": host or None, "children": []}
