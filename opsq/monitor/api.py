"""`/api/...`: the facts as JSON. Points in time are Unix seconds, durations seconds, sizes bytes; unknown is null."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from opsq.monitor.facts import Facts
from opsq.monitor.query import Query, limit

Values = Mapping[str, str]


def overview(facts: Facts, _values: Values) -> dict[str, Any]:
    """Everything but tasks."""
    return facts.overview()


def queues(facts: Facts, _values: Values) -> dict[str, Any]:
    """The queues."""
    return {"queues": facts.queues()}


def workers(facts: Facts, _values: Values) -> dict[str, Any]:
    """The workers."""
    return {"workers": facts.workers()}


def tasks(facts: Facts, values: Values) -> dict[str, Any]:
    """The latest tasks that fit."""
    query = Query.of(values)
    return facts.tasks(query.wanted(), limit(values), query.before)


def running(facts: Facts, _values: Values) -> dict[str, Any]:
    """What runs now."""
    return {"running": facts.running()}


def totals(facts: Facts, _values: Values) -> dict[str, Any]:
    """What came of messages since ever."""
    rows = [
        {"queue": queue, "name": task, "state": state, "count": total.count, "runtime": total.runtime_s}
        for (queue, task, state), total in sorted(facts.totals().items())
    ]
    return {"totals": rows}


def schedule(facts: Facts, _values: Values) -> dict[str, Any]:
    """The entries of the schedule."""
    return {"schedule": facts.schedule()}


def hosts(facts: Facts, _values: Values) -> dict[str, Any]:
    """The hosts."""
    return {"hosts": facts.hosts()}


def dead(facts: Facts, values: Values) -> dict[str, Any]:
    """The latest dead letters."""
    return facts.dead(limit(values))


#: Path below `/api` -> what answers, and a line of help.
LISTS: Mapping[str, tuple[Callable[[Facts, Values], dict[str, Any]], str]] = {
    "overview": (overview, "monitor, programs, queues, workers, and what ended by the minute"),
    "queues": (queues, "depth, age, rate, consumers; depths and outcomes of the last hour"),
    "workers": (workers, "opsq's workers with their children, and Celery's"),
    "tasks": (tasks, "the history; ?q= &name= &state= &queue= &worker= &since=1h &limit=100 &before="),
    "running": (running, "what runs now, longest first"),
    "totals": (totals, "counts and run times since ever, by queue, task and state"),
    "schedule": (schedule, "entries of beat, with last and next run"),
    "hosts": (hosts, "hosts with an agent, as they say themselves"),
    "dead": (dead, "the latest dead letters; ?limit=100"),
}
ONE = {"tasks/ID": "all that is known of one task", "workers/NODE": "one worker"}


def index() -> dict[str, Any]:
    """What there is."""
    return {"api": {f"/api/{path}": help for path, (_answer, help) in LISTS.items()} | _ones()}


def _ones() -> dict[str, str]:
    return {f"/api/{path}": help for path, help in ONE.items()}


def encode(value: Any) -> bytes:
    """JSON that every reader takes: ASCII, and no numbers that JSON does not have."""
    try:
        text = json.dumps(value, default=str, allow_nan=False)
    except (ValueError, RecursionError):
        text = json.dumps(_cleaned(value), default=str, allow_nan=False)
    return text.encode("ascii") + b"\n"


def _cleaned(value: Any, depth: int = 0) -> Any:
    if depth > 60:
        return "…"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _cleaned(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(each, depth + 1) for each in value]
    return value
