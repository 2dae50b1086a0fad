"""Queues go to Celery's workers: what lost workers held is settled, the rest is put where Celery looks.

Nothing is done while a worker of opsq takes from these queues: it would fetch back what is for later.
"""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from opsq.broker import handover as store
from opsq.broker.broker import Broker
from opsq.broker.handover import Holder
from opsq.broker.leftovers import Leftovers
from opsq.broker.pending import pending
from opsq.datastore import connection, keys
from opsq.exceptions import OpsqError, UsageError
from opsq.worker import chords, first_look
from opsq.worker.assemble import LEASE_S, judge_of
from opsq.worker.post import Post
from opsq.worker.rescue import Rescue
from opsq.worker.settle import Settler

#: Between two looks at the registry of consumers (seconds).
LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Handed:
    """What was handed over of one queue: messages that lost workers held, of limits, for later."""

    queue: str
    in_flight: int
    limited: int
    delayed: int


class Handover:
    """Hands over queues of an app. `folder`: of the mapped files of this host's workers; `say` is told of waits."""

    def __init__(self, app: Any, folder: Path, say: Callable[[str], None]) -> None:
        self._app, self._say = app, say
        self._broker, self._folder = app.broker, folder
        self._results = first_look.results(app.broker.url, app.backend)

    def run(self, queues: Sequence[str]) -> list[Handed]:
        """Hand over. Raises OpsqError while workers of opsq take from these queues, UsageError, BrokerError."""
        queues = list(dict.fromkeys(queues))
        _, holders = store.holders(self._broker, queues)
        before = _held(holders)
        if before:
            self._check_that_tasks_are_known(queues)
        rescue = self._rescue(queues)
        with connection.errors(self._broker.url):
            rescue.leftovers()
            self._wait_for_the_lost(queues)
            _, lost = store.holders(self._broker, queues)
            for name in sorted({each.name for each in lost}):
                rescue.take_over(name, [each.queue for each in lost if each.name == name], math.inf)
        if before:
            self._look_after_chords(queues)
        return [self._hand_over(queue, before.get(queue, 0)) for queue in queues]

    def _rescue(self, queues: list[str]) -> Rescue:
        """Who settles what lost workers held, in the name of none that ever takes anything."""
        broker, node = self._broker, f"handover@{socket.gethostname()}"
        names = broker.key_prefix, broker.priorities
        post = Post(broker.url, f"{node}:{uuid4().hex[:8]}", queues, LEASE_S, *names, self._folder)
        return Rescue(post, judge_of(self._app, node, self._results), Leftovers(queues, broker.key_prefix, {}))

    def _hand_over(self, queue: str, in_flight: int) -> Handed:
        store.free_claims(self._broker, queue)
        limited = store.limited_to_celery(self._broker, queue)
        return Handed(queue, in_flight, limited, store.delayed_to_celery(self._broker, queue))

    def _check_that_tasks_are_known(self, queues: list[str]) -> None:
        """What was started may run again only if its task says so: who does not know the task must not judge."""
        held = {each.task for each in pending(self._broker, queues) if each.kind == "in flight"}
        unknown = sorted(held - self._app.tasks.keys())
        if unknown:
            raise UsageError(
                "cannot judge what a worker has in hand",
                why=f"the app here has no task {', '.join(unknown[:3])}",
                hint="name the app of these tasks: opsq -A APP queues handover ...",
            )

    def _wait_for_the_lost(self, queues: list[str]) -> None:
        """Until all leases have run out. Raises OpsqError when somebody renews one: a worker that lives.

        After an outage longer than a lease all have run out although everybody lives; so before anything is taken from
        somebody's hands a whole lease must have gone by unrenewed.
        """
        began = time.monotonic()
        now_ms, first = store.holders(self._broker, queues)
        seen = {(each.queue, each.name): each.deadline_ms for each in first}
        lease_s, said = _longest_lease(self._broker, first), False
        found = first
        while any(each.deadline_ms >= now_ms for each in found) or (
            _held(found) and time.monotonic() - began < lease_s
        ):
            if not said:
                self._say(f"waiting until the leases of {_nodes(found)} run out ({lease_s:g} s at most)")
                said = True
            time.sleep(LOOK_S)
            now_ms, found = store.holders(self._broker, queues)
            alive = [each for each in found if each.deadline_ms > seen.get((each.queue, each.name), 0)]
            if alive:
                raise OpsqError(
                    f"cannot hand over {', '.join(dict.fromkeys(each.queue for each in alive))}",
                    why=f"{_nodes(alive)} still takes from there",
                    hint="stop it first, or have it take no more: opsq control cancel_consumer QUEUE",
                )

    def _look_after_chords(self, queues: list[str]) -> None:
        """Send the bodies of chords whose last part was settled here: maybe no worker of opsq is left to do it."""
        backend = self._app.backend
        if not backend.keeps_results:
            return
        time.sleep(chords.SOON_S)
        settler = Settler(queues, self._results, self._broker.key_prefix, self._broker.priorities)
        conductor = chords.Conductor(self._app, settler)
        for name, why in backend.chords.look():
            conductor.dispatch(name, why)
        conductor.finish()


def _held(holders: Sequence[Holder]) -> dict[str, int]:
    """How many messages of each queue are in somebody's hands; without queues of which none is."""
    found: dict[str, int] = {}
    for each in holders:
        if each.held:
            found[each.queue] = found.get(each.queue, 0) + each.held
    return found


def _nodes(holders: Sequence[Holder]) -> str:
    return ", ".join(dict.fromkeys(each.name.rsplit(":", 2)[0] for each in holders))


def _longest_lease(broker: Broker, holders: Sequence[Holder]) -> float:
    """Of these workers, as their records say (seconds)."""
    workers = list(dict.fromkeys(each.name.rpartition(":")[0] for each in holders))
    records: Any = broker.client.mget([broker.key(keys.worker(name)) for name in workers]) if workers else []
    told = [json.loads(record).get("lease") for record in records if record is not None]
    return max((lease for lease in told if lease), default=LEASE_S)
