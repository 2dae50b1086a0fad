"""`/metrics`: what Prometheus asks for, as text of its format 0.0.4. Counts are the workers' own, not the history's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from opsq.broker.stats import Total
from opsq.monitor.facts import Facts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[Mapping[str, str], float]


class Family(NamedTuple):
    """One metric: its name, its type, a line of help."""

    name: str
    kind: str
    help: str


QUEUE_GAUGES: Mapping[str, Family] = {
    "waiting": Family("opsq_queue_depth", "gauge", "Messages that wait in the queue, of all priorities."),
    "oldest": Family("opsq_queue_oldest_seconds", "gauge", "How long the first message of the queue has waited."),
    "delayed": Family("opsq_queue_delayed", "gauge", "Messages of the queue that are for later."),
    "limited": Family("opsq_queue_limited", "gauge", "Messages of the queue that wait for their limits."),
    "in_flight": Family("opsq_queue_in_flight", "gauge", "Messages of the queue that workers hold."),
    "consumers": Family("opsq_queue_consumers", "gauge", "Consumers (of opsq) of the queue."),
    "paused": Family("opsq_queue_paused", "gauge", "1 while the queue is paused."),
    "dead": Family("opsq_dead_letters", "gauge", "Dead letters of the queue."),
}
TASKS = Family("opsq_tasks_total", "counter", "Messages of the queue that ended, by task and state.")
RUNTIME = Family("opsq_task_runtime_seconds", "summary", "How long tasks ran, by task and state.")
WORKERS = Family("opsq_workers", "gauge", "Workers that are alive.")
BUSY = Family("opsq_worker_busy", "gauge", "Tasks that the worker runs.")
CHILDREN = Family("opsq_worker_children", "gauge", "Tasks that the worker may run at once.")
PROCESSED = Family("opsq_worker_processed_total", "counter", "Messages that the worker has ended since its start.")
PROGRAMS = Family("opsq_program_up", "gauge", "1 while the program of `opsq up` runs, of those that should.")
CONNECTED = Family("opsq_monitor_connected", "gauge", "1 while the monitor hears events.")
EVENTS = Family("opsq_monitor_events_total", "counter", "Events that this monitor has heard.")
UNREADABLE = Family("opsq_monitor_unreadable_total", "counter", "Messages on the events' channels that were none.")
SKIPPED = Family("opsq_monitor_history_skipped_total", "counter", "Tasks that were counted, not kept in the history.")


def text(facts: Facts) -> str:
    """All metrics."""
    return "\n".join([*_lines(facts), ""])


def _lines(facts: Facts) -> Iterator[str]:
    queues = facts.queues()
    for key, family in QUEUE_GAUGES.items():
        yield from _family(family, [({"queue": q["name"]}, float(q[key])) for q in queues if q[key] is not None])
    yield from _totals(facts.totals())
    yield from _workers(facts.workers())
    programs = facts.overview()["programs"]
    if programs is not None:
        wanted = [each for each in programs if each.get("wanted", True)]
        rows = [({"program": str(each["name"])}, float(each["state"] == "RUNNING")) for each in wanted]
        yield from _family(PROGRAMS, rows)
    health = facts.collector.health
    yield from _family(CONNECTED, [({}, float(health.connected_since is not None))])
    for family, value in ((EVENTS, health.events), (UNREADABLE, health.unreadable), (SKIPPED, health.skipped)):
        yield from _family(family, [({}, value)])


def _totals(totals: Mapping[tuple[str, str, str], Total]) -> Iterator[str]:
    labelled = [
        ({"queue": queue, "name": task, "state": state}, total)
        for (queue, task, state), total in sorted(totals.items())
    ]
    yield from _family(TASKS, [(labels, total.count) for labels, total in labelled])
    yield from _head(RUNTIME)
    for labels, total in labelled:
        yield _sample(f"{RUNTIME.name}_sum", labels, total.runtime_s)
        yield _sample(f"{RUNTIME.name}_count", labels, total.count)


def _workers(workers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    alive = [worker for worker in workers if worker["alive"]]
    kinds = {kind: sum(1 for worker in alive if worker["kind"] == kind) for kind in ("opsq", "celery")}
    yield from _family(WORKERS, [({"kind": kind}, count) for kind, count in kinds.items()])
    for key, family in (("busy", BUSY), ("concurrency", CHILDREN), ("processed", PROCESSED)):
        rows = {str(each["id"]): each for each in alive if each[key] is not None}
        yield from _family(family, [({"worker": name}, float(each[key])) for name, each in rows.items()])


def _head(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help}"
    yield f"# TYPE {family.name} {family.kind}"


def _family(family: Family, samples: Iterable[Sample]) -> Iterator[str]:
    yield from _head(family)
    for labels, value in samples:
        yield _sample(family.name, labels, value)


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    told = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    number = str(int(value)) if float(value).is_integer() else repr(float(value))
    return f"{name}{{{told}}} {number}" if told else f"{name} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "")
