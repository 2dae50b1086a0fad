"""The workers that are alive, and what they run, as their records in Redis say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opsq.broker.broker import Broker
from opsq.broker.queues import server_ms
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.exceptions import DecodeError
from opsq.protocol import envelope

_FIELDS = (
    "id",
    "node",
    "host",
    "pid",
    "since",
    "pool",
    "concurrency",
    "least",
    "autoscale",
    "queues",
    "version",
    "processed",
)


def live(broker: Broker) -> list[dict[str, Any]]:
    """The records of all workers whose lease runs; each has `children`, and these `running`, `task` and `task_id`."""
    with errors(broker.url):
        ids: Any = broker.client.zrangebyscore(broker.key(keys.WORKERS), server_ms(broker), "+inf")
        names = [worker_id.decode() for worker_id in ids]
        found: Any = broker.client.mget([broker.key(keys.worker(name)) for name in names]) if names else []
        records = [_record(data) for data in found if data is not None]
        _name_tasks(broker, records)
    return sorted(records, key=lambda record: (str(record["node"]), str(record["id"])))


def serving(records: Iterable[Mapping[str, Any]], queue: str) -> list[Mapping[str, Any]]:
    """The workers that are there for a queue, also while none of their children takes from it."""
    return [record for record in records if queue in (record["queues"] or ())]


def busy(record: Mapping[str, Any]) -> int:
    """How many tasks a worker runs; one of its children may run many."""
    return sum(child["running"] for child in record["children"])


def celery_waits(broker: Broker) -> bool:
    """Whether a client takes messages as Celery's workers do (BRPOP); from which queue, the server does not tell."""
    with errors(broker.url):
        clients: Any = broker.client.client_list()
    return any(str(each.get("cmd", "")).lower() == "brpop" for each in clients)


def _record(data: bytes) -> dict[str, Any]:
    told = json.loads(data)
    children = [
        {"task": None, "task_id": None, "running": int(bool(child.get("since"))), **child}
        for child in told.get("children") or ()
    ]
    return {**dict.fromkeys(_FIELDS), "tasks": None, **told, "children": children}


def _name_tasks(broker: Broker, records: Sequence[dict[str, Any]]) -> None:
    """A worker's record has the numbers of the messages that run; what they are is in its store.

    The record is some seconds old: a message that has left the store since then runs no more.
    """
    pipe = broker.client.pipeline(transaction=False)
    asked = []
    for record in records:
        for child in record["children"]:
            if child.get("number"):
                for queue in record["queues"] or ():
                    asked.append(child)
                    pipe.hget(broker.key(keys.inflight(queue, f"{record['id']}:{child['slot']}")), child["number"])
    held: dict[int, bytes] = {}
    for child, raw in zip(asked, pipe.execute() if asked else (), strict=True):
        if raw is not None:
            held[id(child)] = raw
    for child in asked:
        if id(child) in held:
            child["task"], child["task_id"] = _task_of(held[id(child)])
        else:
            child["number"] = child["since"] = None
            child["running"] = max(child["running"] - 1, 0)


def _task_of(raw: bytes) -> tuple[str | None, str | None]:
    try:
        headers = envelope.parse(raw).headers
    except DecodeError:
        return None, None
    return headers.task, headers.id
