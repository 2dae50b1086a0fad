"""The messages that a worker has in hand, as they lie in Redis and as the slots say: running, reserved, for later."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from opsq.concurrency.base import POOLS
from opsq.datastore import keys
from opsq.exceptions import ContentDisallowed, DecodeError
from opsq.protocol.envelope import Envelope, parse
from opsq.worker import slots
from opsq.worker.child import consumer_name
from opsq.worker.panel import State

#: The most messages for later that are looked at in each queue.
MOST_SCHEDULED = 1000


@dataclass(frozen=True, slots=True)
class Holding:
    """One message: active (it runs, in process `pid`, since `started_s`), reserved or scheduled (for `due_s`).

    `slot` and `number` say where it is. Times in Unix seconds; of a child that runs many it is not known since when.
    """

    message: Envelope
    state: str
    slot: int = -1
    number: int = 0
    pid: int | None = None
    started_s: float | None = None
    due_s: float | None = None


def held_by(state: State) -> Iterator[Holding]:
    """What the children of the worker hold: what runs, and what they have taken and not started."""
    post, many = state.leases.post, POOLS[state.worker.plan.setup.pool].many
    for slot in state.leases.table.used():
        words = slot.words
        current, highest, started = int(words[slots.CURRENT]), int(words[slots.HIGHEST]), int(words[slots.STARTED_NS])
        pid, now_s, now_ns = int(words[slots.PID]), time.time(), time.monotonic_ns()
        pipe = state.redis.pipeline(transaction=False)
        for queue in post.queues:
            pipe.hgetall(state.key(keys.inflight(queue, consumer_name(post.worker_id, slot.index))))
        found = {int(number): raw for stored in pipe.execute() for number, raw in stored.items()}
        for number, raw in sorted(found.items()):
            try:
                message = parse(raw)
            except DecodeError:
                continue
            if many and number <= highest:
                yield Holding(message, "active", slot.index, number, pid)
            elif number == current:
                yield Holding(message, "active", slot.index, number, pid, now_s - (now_ns - started) / 1e9)
            elif number > highest:
                yield Holding(message, "reserved", slot.index, number)


def scheduled_in(state: State) -> Iterator[Holding]:
    """The messages for later in the worker's queues, the next ones of each first."""
    for queue in state.leases.post.queues:
        key = state.key(keys.delayed(queue))
        found: Any = state.redis.zrange(key, 0, MOST_SCHEDULED - 1, withscores=True)
        for member, due_ms in cast("list[tuple[bytes, float]]", found):
            try:
                yield Holding(parse(member.partition(b"|")[2]), "scheduled", due_s=due_ms / 1000)
            except DecodeError:
                continue


def info_of(state: State, holding: Holding, safe: bool = False) -> dict[str, Any]:
    """What Celery's workers tell of a task; with `safe` its arguments as text."""
    message = holding.message
    headers, properties, info = message.headers, message.properties, message.properties.delivery_info
    args, kwargs = _arguments(state, message, safe)
    task = state.app.tasks.get(headers.task)
    return {
        "id": headers.id,
        "name": message.name,
        "args": args,
        "kwargs": kwargs,
        "type": headers.task,
        "hostname": state.hostname,
        "time_start": holding.started_s,
        "acknowledged": holding.state == "active" and not getattr(task, "acks_late", False),
        "delivery_info": {
            "exchange": info.exchange,
            "routing_key": info.routing_key,
            "priority": properties.priority,
            "redelivered": bool(info.redelivered or headers.deliveries),
        },
        "worker_pid": holding.pid,
    }


def _arguments(state: State, message: Envelope, safe: bool) -> tuple[Any, Any]:
    if not safe:
        try:
            return message.arguments(state.accept)[:2]
        except (DecodeError, ContentDisallowed):
            pass
    headers = message.everything()["headers"]
    return headers.get("argsrepr"), headers.get("kwargsrepr")
