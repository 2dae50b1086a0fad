"""What a worker may change while it runs: the part of its settings that a reload reads anew."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opsq.app.task import Task
from opsq.protocol.routing import Binding
from opsq.worker.limit_options import Ruling, limits_differ
from opsq.worker.upkeep import Caps

#: Children that are started at once; with more of them allowed, the others come when they are needed.
AT_ONCE = 16
#: Children of a worker: the mapped file has some slots more, for those whose messages are being settled.
MOST_CHILDREN = 1000
#: What the parent must know of a task to settle what its children held.
_FACTS = (
    *("acks_late", "acks_on_failure", "acks_on_timeout", "reject_on_worker_lost"),
    *("ignore_result", "store_errors_even_if_ignored", "send_events"),
)


@dataclass(frozen=True, slots=True)
class Terms:
    """How a worker works until it is told otherwise.

    `least`, `most`: between which the number of children moves; `scales`: it grows only when messages wait too long
    (autoscale), not as soon as all children are busy. `stop_s`: how long a stop may take before what runs is ended,
    0 = as long as it takes; `stops_idle`: that time is waited for even if nothing runs. `tasks`: what is known of each.
    `sources`: folders whose files are watched (`--reload`); `limits`: of tasks and queues; `bindings`: of the queues.
    """

    queues: list[str]
    least: int
    most: int
    scales: bool
    caps: Caps
    log_level: int
    stop_s: float
    stops_idle: bool
    max_deliveries: int
    tasks: dict[str, list[Any]]
    sources: list[str]
    limits: Ruling
    bindings: dict[str, list[Binding]]


class Known(Task[Any, Any]):
    """A task whose code only newer children have: as much of it as settling needs."""


def facts_of(tasks: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What the parent must know of each task, as plain data."""
    return {name: _facts(task) for name, task in tasks.items()}


def _facts(task: Any) -> list[Any]:
    try:
        return [getattr(task, fact) for fact in _FACTS]
    except Exception:  # a class of the program's own may do anything; what it trips is told when it runs
        return [None] * len(_FACTS)


def known_tasks(facts: Mapping[str, list[Any]], app: Any) -> dict[str, Any]:
    """The tasks of newer children, by what is known of them."""
    return {
        name: type("Known", (Known,), {"name": name, "app": app, **dict(zip(_FACTS, values, strict=True))})()
        for name, values in facts.items()
    }


def differences(old: Terms, new: Terms) -> list[str]:
    """What has changed, in words."""
    pairs = [
        ("concurrency", _size(old), _size(new)),
        ("tasks at once", old.caps.at_once, new.caps.at_once),
        ("queues", ",".join(old.queues), ",".join(new.queues)),
        ("prefetch", old.caps.prefetch or "automatic", new.caps.prefetch or "automatic"),
        ("max tasks per child", old.caps.tasks or "none", new.caps.tasks or "none"),
        ("max memory per child", old.caps.memory_kib or "none", new.caps.memory_kib or "none"),
        ("log level", logging.getLevelName(old.log_level), logging.getLevelName(new.log_level)),
        ("soft shutdown timeout", f"{old.stop_s:g} s", f"{new.stop_s:g} s"),
        ("max deliveries", old.max_deliveries, new.max_deliveries),
    ]
    found = [f"{name} {before} -> {after}" for name, before, after in pairs if before != after]
    fresh, gone = sorted(new.tasks.keys() - old.tasks.keys()), sorted(old.tasks.keys() - new.tasks.keys())
    limited = sorted(limits_differ(old.limits, new.limits))
    found += [f"other limits of {name}" for name in limited[:5]]
    found += [f"new task {name}" for name in fresh[:5]] + [f"no more {name}" for name in gone[:5]]
    return found


def _size(terms: Terms) -> str:
    return f"{terms.least} to {terms.most}" if terms.scales else str(terms.most)
