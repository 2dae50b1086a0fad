"""A queue goes to Celery's workers: what opsq keeps of it under keys of its own is put where they look.

Who calls this knows that no worker of opsq takes from the queue any more: one would fetch it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from opsq.broker import moving
from opsq.broker.broker import LUA, Broker
from opsq.broker.lanes import lanes
from opsq.broker.queues import server_ms
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.datastore.scripts import Script
from opsq.exceptions import OpsqError

PROMOTE = Script(LUA / "promote.lua")
EMPTY_LANES = Script(LUA / "empty_lanes.lua")

#: Messages of one step.
AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Holder:
    """A consumer of a queue: when its lease ends (ms of the server's clock), how many messages it holds."""

    queue: str
    name: str
    deadline_ms: float
    held: int


def holders(broker: Broker, queues: list[str]) -> tuple[int, list[Holder]]:
    """The server's time (ms), and all consumers that are registered with these queues."""
    with errors(broker.url):
        now_ms = server_ms(broker)
        found = []
        for queue in queues:
            members: Any = broker.client.zrange(broker.key(keys.consumers(queue)), 0, -1, withscores=True)
            names = [(name.decode(), deadline) for name, deadline in members]
            pipe = broker.client.pipeline(transaction=False)
            for name, _deadline in names:
                pipe.hlen(broker.key(keys.inflight(queue, name)))
            counts = pipe.execute() if names else []
            found += [Holder(queue, *each, held) for each, held in zip(names, counts, strict=True)]
    return now_ms, found


def limited_to_celery(broker: Broker, queue: str) -> int:
    """What waits for limits goes to the head of the queue: Celery's workers have limits of their own. How many."""
    places = [broker.key(keys.lanes(queue)), broker.key(keys.lane_facts(queue))]
    with errors(broker.url):
        return sum(_steps(queue, lambda: EMPTY_LANES.run(broker.client, places, [AT_ONCE])))


def delayed_to_celery(broker: Broker, queue: str) -> int:
    """What is for later goes into the queue: each message says its `eta`, and who takes it waits. Returns how many."""
    lists = [(step or "", broker.key(broker.priorities.at_step(queue, step))) for step in broker.priorities.steps]
    words = [word for pair in lists for word in pair]

    def step() -> tuple[int, bytes]:
        moved, left, _ = PROMOTE.run(broker.client, [broker.key(keys.delayed(queue))], [AT_ONCE, "+inf", *words])
        return moved, b"" if moved or not left else b"a message cannot be written into its list"

    with errors(broker.url):
        return sum(_steps(queue, step))


def free_claims(broker: Broker, queue: str) -> None:
    """What unique messages of the queue have claimed becomes free: Celery's workers would not do that at their end."""
    with errors(broker.url):
        of_lanes = [name for lane in lanes(broker.client, broker.key_prefix, [queue]) for name in lane.lists]
        places = [broker.key(name) for name in (*broker.priorities.lists(queue), keys.delayed(queue))]
        for place in (*places, *of_lanes):
            for raws in moving.slices(broker, place.encode()):
                moving.free_claims(broker, raws)


def _steps(queue: str, step: Callable[[], Any]) -> Iterator[int]:
    """How many each step has moved, until one moves none. Raises OpsqError."""
    while True:
        moved, trouble = step()
        if trouble:
            raise OpsqError(f"cannot hand over all of {queue}", why=trouble.decode(errors="replace"))
        if not moved:
            return
        yield moved
