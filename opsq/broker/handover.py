"""A queue goes to Celery's workers: what opsq keeps of it under keys of its own is put where they look.

Who calls this knows that no worker of opsq takes from the queue any more: one would fetch it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from opsq.broker import moving
from opsq.broker.broker import LUA, Broker
from opsq.broker.lanes import lanes
from opsq.broker.queues import server_ms
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.datastore.scripts import Script
from opsq.exceptions import DecodeError, OpsqError
from opsq.protocol import envelope

HAND_OVER = Script(LUA / "hand_over.lua")
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
    """What is for later goes into the queue, each message with its `eta`. Returns how many."""
    delayed = broker.key(keys.delayed(queue))
    lists = {b"%d" % step if step else b"": broker.priorities.at_step(queue, step) for step in broker.priorities.steps}

    def step() -> Any:
        members: Any = broker.client.zrange(delayed, 0, AT_ONCE - 1, withscores=True)
        now_ms = server_ms(broker)
        words: list[Any] = []
        for member, due_ms in members:
            suffix, _, raw = member.partition(b"|")
            list_ = broker.key(lists.get(suffix, queue))
            words += (member, list_, _with_eta(raw, due_ms) if due_ms > now_ms else raw)
        return HAND_OVER.run(broker.client, [delayed], words)

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


def _with_eta(raw: bytes, due_ms: float) -> bytes:
    """A message that says itself when it is due; one that cannot be read stays as it is."""
    try:
        envelope.parse(raw)
    except DecodeError:
        return raw
    return envelope.changed(raw, {"eta": datetime.fromtimestamp(due_ms / 1000, UTC).isoformat()})
