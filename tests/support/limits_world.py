"""An app's limits, and children that work under them without running anything: for tests of the scripts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis

from opsq import Celery
from opsq.broker.consumer import Consumer
from opsq.broker.limits import RELEASE
from opsq.broker.settlement import Settlement
from opsq.datastore import keys
from opsq.datastore.priorities import PRIORITIES
from opsq.protocol import writing
from opsq.protocol.envelope import Envelope, parse
from opsq.worker.admission import Admission
from opsq.worker.batch import Held
from opsq.worker.gate import Elsewhere
from opsq.worker.limit_options import Ruling
from opsq.worker.limits import Policy
from opsq.worker.settle import Results, Settler

QUEUE = "celery"
ACCEPT = frozenset({"application/json"})


@dataclass
class Desk:
    """One child as far as limits are concerned: what it leases, asks for, holds and settles."""

    url: str
    client: redis.Redis
    policy: Policy
    worker: str = "w@h:11112222"
    slot: int = 0
    queues: tuple[str, ...] = (QUEUE,)
    taken: list[tuple[Held, Envelope]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.consumer = Consumer(self.url, self.queues, f"{self.worker}:{self.slot}")
        for queue in self.queues:
            self.client.zadd(keys.consumers(queue), {self.consumer.name: 9e15})
        self.consumer.connect()
        self.settler = Settler(list(self.queues), Results())
        self.admission = Admission(self.consumer, self.worker, self.policy, ACCEPT, lambda: 0)

    def lease(self, want: int = 500) -> list[str]:
        """Lease and ask; the ids of those that may run."""
        turn = self.consumer.turn((), want)
        fresh = []
        for leased in turn.leased:
            for place, raw in enumerate(leased.messages):
                fresh.append((Held(leased.number + place, leased.queue, leased.source, raw), parse(raw)))
        verdicts = self.admission.look(fresh)
        assert all(isinstance(verdict, Elsewhere) for verdict in verdicts.values())
        may = [each for each in fresh if each[0].number not in verdicts]
        self.taken += may
        return [message.headers.id for _held, message in may]

    def end(self, task_id: str, word: Any = "succeeded") -> Any:
        """Settle one that ran; returns the turn."""
        held = self._give(task_id)
        settlement = Settlement(held.queue, held.number, word=word, task="t")
        self.settler.hand_in(settlement, self.consumer.passes[held.queue])
        return self.consumer.turn([settlement], 0)

    def back(self, task_id: str) -> None:
        """Give one back that was not started."""
        held = self._give(task_id)
        settlement = self.settler.back(held.queue, held.number, held.source, held.raw)
        self.settler.hand_in(settlement, self.consumer.passes[held.queue])
        self.consumer.turn([settlement], 0)

    def _give(self, task_id: str) -> Held:
        found = next(each for each in self.taken if each[1].headers.id == task_id)
        self.taken.remove(found)
        return found[0]

    def release(self, queue: str = QUEUE, *changed: str) -> tuple[int, float | None]:
        """What the mover does: how many were put back, and in how many seconds it looks again."""
        arguments = [keys.lane_facts(queue), self.worker, 500, *changed]
        moved, again = RELEASE.run(self.client, [keys.lanes(queue)], arguments)
        return moved, float(again) / 1000 - time.time() if again else None

    def close(self) -> None:
        self.consumer.close()


def nothing(*_args: Any, **_kwargs: Any) -> None:
    """What most tasks do."""


def of_user(user: str, text: str = "") -> None:
    """A task with arguments."""


class World:
    """An app's limits, and desks that work under them."""

    def __init__(self, url: str, client: redis.Redis) -> None:
        self.url, self.client = url, client
        self.app = Celery("limits", set_as_current=False)
        self.desks: list[Desk] = []
        self.queue_limits: dict[str, Any] = {}

    def task(self, name: str, function: Any = nothing, **options: Any) -> None:
        self.app.task(function, name=name, shared=False, **options)

    def desk(self, **options: Any) -> Desk:
        policy = Policy(Ruling.read(self.app.tasks, self.queue_limits), tasks=self.app.tasks)
        desk = Desk(self.url, self.client, policy, slot=len(self.desks), **options)
        self.desks.append(desk)
        return desk

    def send(self, task: str, *ids: str, queue: str = QUEUE, priority: int = 0, **kwargs: Any) -> None:
        for task_id in ids:
            raw = writing.build(task=task, id=task_id, args=[], kwargs=kwargs, queue=queue, priority=priority)
            self.client.lpush(PRIORITIES.list_of(queue, priority), raw)

    def parked(self, queue: str = QUEUE) -> int:
        """What waits in lanes, counted message by message."""
        return sum(int(self.client.llen(key)) for key in self.client.scan_iter(f"opsq:limited:{{{queue}}}:*"))

    def is_empty(self, queue: str = QUEUE) -> bool:
        """Nothing is left of lanes and passes."""
        left = [*self.client.scan_iter("opsq:lane*"), *self.client.scan_iter("opsq:passes:*")]
        return not left and not self.parked(queue)


@contextmanager
def opened(url: str, client: redis.Redis) -> Iterator[World]:
    """A world whose desks are closed in the end."""
    made = World(url, client)
    try:
        yield made
    finally:
        for desk in made.desks:
            desk.close()


def numbered(count: int, start: int = 0) -> list[str]:
    return [f"m{n}" for n in range(start, start + count)]
