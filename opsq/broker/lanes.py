"""The lanes in which messages wait for their limits, as lists: for whoever looks into them, or takes from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opsq.broker.limits import BAR, QUEUE_LANE
from opsq.datastore import keys

if TYPE_CHECKING:
    import redis


@dataclass(frozen=True, slots=True)
class Lane:
    """Messages of one queue that wait for the same limits.

    `lists`: those of the lane, and `targets`: those of its queue, by priority, the first served first; `facts`: the key
    of what is known of the queue's lanes.
    """

    queue: str
    name: str
    lists: Sequence[str]
    targets: Sequence[str]
    facts: str
    again_ms: int
    gates: Sequence[Sequence[Any]] = field(default=())

    @property
    def owner(self) -> tuple[str, str]:
        """The task or the queue whose limits they wait for."""
        return ("queue", self.queue) if self.name == QUEUE_LANE else ("task", self.name.partition(BAR)[0])


def lanes(server: redis.Redis, key_prefix: str, queues: Sequence[str]) -> list[Lane]:
    """The lanes of these queues in which something waits, or from which something is on its way."""
    pipe = server.pipeline(transaction=False)
    for queue in queues:
        pipe.zrange(key_prefix + keys.lanes(queue), 0, -1, withscores=True)
        pipe.hgetall(key_prefix + keys.lane_facts(queue))
    answers = pipe.execute()
    found = []
    for queue, members, facts in zip(queues, answers[::2], answers[1::2], strict=True):
        for member, again in members:
            text = facts.get(b"=" + member)
            if text is not None:
                data = json.loads(text)
                lists, targets = ([data[end] + suffix for suffix in data["steps"]] for end in ("from", "to"))
                name, facts_key = member.decode(errors="replace"), key_prefix + keys.lane_facts(queue)
                found.append(Lane(queue, name, lists, targets, facts_key, int(again), data["gates"]))
    return found


def depths(server: redis.Redis, found: Sequence[Lane]) -> list[int]:
    """How many messages wait in each of these lanes."""
    pipe = server.pipeline(transaction=False)
    for lane in found:
        for name in lane.lists:
            pipe.llen(name)
    counts = iter(pipe.execute() if found else ())
    return [sum(next(counts) for _ in lane.lists) for lane in found]
