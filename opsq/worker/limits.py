"""Which limits messages are under, and the lane in which each waits for them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from opsq._state import broker_time_at
from opsq.broker.limits import BAR, QUEUE_LANE, Gate, Limits, is_rate, lane_facts, rate_per_second
from opsq.datastore.priorities import PRIORITIES, Priorities
from opsq.exceptions import ContentDisallowed, DecodeError
from opsq.protocol.envelope import Envelope
from opsq.worker.limit_options import Key, Ruling, Said, keys_of

logger = logging.getLogger("opsq.worker")

#: How many lanes are remembered with their facts.
_REMEMBERED = 1000


class Policy:
    """The limits of one worker: what its app says, and what commands have changed."""

    def __init__(
        self,
        ruling: Ruling,
        prefix: str = "",
        priorities: Priorities = PRIORITIES,
        tasks: Mapping[str, Any] | None = None,
    ) -> None:
        """`tasks`: needed by who tells lanes of messages (`lane`), for their keys."""
        self._prefix, self._priorities, self._tasks = prefix, priorities, tasks or {}
        self._cluster: dict[str, str] = {}
        self._own: dict[str, str] = {}
        self.rule(ruling)

    @property
    def on(self) -> bool:
        """Whether there is any limit."""
        return bool(self._by_task or self._by_queue)

    def rule(self, ruling: Ruling) -> None:
        """The app says this from now on."""
        self.ruling = ruling
        self.set_rates(self._cluster, self._own)

    def set_rates(self, cluster: Mapping[str, str], own: Mapping[str, str]) -> None:
        """Rates that were set by command: for the tasks with the scope of the cluster, and for this worker alone."""
        ruling = self.ruling
        self._made = ruling.made if (cluster, own) == (self._cluster, self._own) else time.monotonic()
        self._cluster, self._own = dict(cluster), dict(own)
        by_task = dict(ruling.tasks)
        for rates, is_own in ((cluster, False), (own, True)):
            for name, text in rates.items():
                if self.is_own(name) is is_own and is_rate(text):
                    found = by_task.get(name) or Said(Limits(own=is_own))
                    by_task[name] = replace(found, limits=replace(found.limits, rate=rate_per_second(text)))
        queues = ruling.queues
        if ruling.no_rates:
            by_task = {name: replace(each, limits=replace(each.limits, rate=0)) for name, each in by_task.items()}
            queues = {name: replace(limits, rate=0) for name, limits in queues.items()}
        self._by_task = {name: each for name, each in by_task.items() if each.limits}
        self._by_queue = {name: limits for name, limits in queues.items() if limits}
        self._keys: dict[str, list[Key]] = {}
        self._known: dict[tuple[str, str], str] = {}
        self._known_made = 0.0

    def is_own(self, task: str) -> bool | None:
        """Whether a task's rate counts for each worker alone; None for an unknown one."""
        return self.ruling.own.get(task)

    def lane(self, queue: str, message: Envelope, accept: frozenset[str]) -> str | None:
        """The lane of a message; None when it is under no limit, or cannot be read."""
        name = message.headers.task
        said = self._by_task.get(name)
        if said is None:
            return QUEUE_LANE if queue in self._by_queue else None
        if not said.keys:
            return name
        keys = self._keys.get(name)
        if keys is None:
            keys = self._keys[name] = keys_of(self._tasks, said, name)
        try:
            args, kwargs, _embed = message.arguments(accept)
        except (DecodeError, ContentDisallowed):
            return None
        return BAR.join([name, *(key.of(args, kwargs) for key in keys)])

    def facts(self, queue: str, lane: str) -> str | None:
        """What the scripts are told of a lane; None of one whose task is not known here."""
        made = round(broker_time_at(self._made), 1)
        if made != self._known_made:  # the broker's clock has become known, or is another one's
            self._known, self._known_made = {}, made
        text = self._known.get((queue, lane))
        if text is None and (gates := self._gates(queue, lane)) is not None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            text = self._known[queue, lane] = lane_facts(self._prefix, queue, lane, gates, self._priorities, made)
        return text

    def _gates(self, queue: str, lane: str) -> list[Gate] | None:
        of_queue = self._by_queue.get(queue, Limits()).gates(self._prefix, f"queue:{queue}")
        name, *parts = lane.split(BAR)
        if name == QUEUE_LANE:
            return of_queue
        said = self._by_task.get(name)
        if said is None:
            return of_queue if name in self.ruling.own else None
        if len(parts) != len(said.keys):
            return None
        limits = said.limits
        rate_key = parts.pop(0) if limits.rate and said.rate_key is not None else None
        places_key = parts.pop(0) if limits.places and said.places_key is not None else None
        return [*limits.gates(self._prefix, f"task:{name}", rate_key, places_key), *of_queue]

    def registry(self) -> dict[str, dict[str, Any]]:
        """All limits as they are told to whoever asks: `task:<name>` and `queue:<name>`."""
        found = {f"queue:{name}": _told(limits) for name, limits in self._by_queue.items()}
        for name, said in self._by_task.items():
            keys = {"rate_key": said.rate_key, "concurrency_key": said.places_key}
            found[f"task:{name}"] = {**_told(said.limits), **keys}
        return found

    def task_names(self) -> set[str]:
        """All tasks that are known here, limited or not."""
        return set(self.ruling.own)


def _told(limits: Limits) -> dict[str, Any]:
    circuit = limits.circuit
    return {
        "rate": limits.rate or None,
        "scope": ("worker" if limits.own else "cluster") if limits.rate else None,
        "max_concurrency": limits.places or None,
        "circuit_breaker": None
        if circuit is None
        else {
            "fail_max": circuit.fail_max,
            "reset_timeout": circuit.reset_s,
            "reset_timeout_max": circuit.longest_s,
        },
    }


def tell_changes(changed: Sequence[Any]) -> None:
    """What a turn has changed of circuits, for the log: task, word, ms, ..."""
    for task, word, ms in zip(changed[::3], changed[1::3], changed[2::3], strict=True):
        if word == b"open":
            logger.warning("the circuit of %s is open: it failed too often in a row, %s s", _text(task), int(ms) / 1000)
        else:
            logger.warning("the circuit of %s is closed: its probe went well", _text(task))


def _text(name: bytes) -> str:
    return name.decode(errors="replace")
