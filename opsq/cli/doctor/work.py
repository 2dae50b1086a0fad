"""Checks of what flows: queues nobody consumes, tasks nobody knows, messages nobody will come back for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from opsq._version import __version__
from opsq.broker import audit, queues, workers
from opsq.cli.doctor.finding import SAMPLE, Finding, Look
from opsq.cli.output import counted
from opsq.datastore import keys
from opsq.datastore.connection import errors

#: The most names that a finding lists.
_NAMED = 5


def consumers(look: Look) -> Iterator[Finding]:
    """Queues in which something waits and that no worker consumes."""
    if workers.celery_waits(look.broker):
        yield from _out_of_reach(look)
        return  # Redis does not tell which queues Celery's workers wait for
    for state in look.queues:
        waiting = state.pending
        if waiting and not state.consumers:
            yield Finding(
                f"{waiting} messages wait in {state.name!r}, and no worker consumes it",
                "they wait until one does",
                f"opsq{_app_flag(look)} worker -Q {state.name}",
            )


def _out_of_reach(look: Look) -> Iterator[Finding]:
    """What is kept for workers of opsq where only Celery's may be left."""
    for state in look.queues:
        kept = state.delayed + state.limited
        if kept and not state.consumers:
            yield Finding(
                f"{kept} messages of {state.name!r} are for later or for limits, and no worker of opsq consumes it",
                "Celery's workers do not look there",
                f"opsq{_app_flag(look)} queues handover --to-celery {state.name}, or start a worker of opsq",
            )


def paused(look: Look) -> Iterator[Finding]:
    """Queues that somebody has paused."""
    for state in look.queues:
        if state.paused:
            yield Finding(
                f"the queue {state.name!r} is paused", "nothing is taken from it", f"opsq queues resume {state.name}"
            )


def unknown_tasks(look: Look) -> Iterator[Finding]:
    """Tasks that wait and that no live worker of the queue has registered."""
    for state in look.queues:
        serving = workers.serving(look.workers, state.name)
        lists = [set(each["tasks"]) for each in serving if each["tasks"] is not None]
        if not lists or len(lists) < len(serving):
            continue
        registered = set().union(*lists)
        waiting = Counter(each.task for each in queues.peek(look.broker, state.name, SAMPLE) if each.task)
        for task in sorted(set(waiting) - registered)[:_NAMED]:
            if not task.startswith("celery."):
                yield Finding(
                    f"{waiting[task]} messages of the task {task!r} wait in {state.name!r}, and no worker registers it",
                    "a worker that takes one puts it with the dead letters",
                    "restart the workers with the code that has it, or correct the name where it is sent",
                )


def orphans(look: Look) -> Iterator[Finding]:
    """Messages in flight at consumers that are gone and that no worker will take over."""
    stores = audit.stores(look.broker)
    for state in look.queues:
        with errors(look.broker.url):
            members: Any = look.broker.client.zrange(look.broker.key(keys.consumers(state.name)), 0, -1)
        registered = {member.decode(errors="replace") for member in members}
        lost = sorted(stores.get(state.name, set()) - registered)
        if lost:
            registry = look.broker.key(keys.consumers(state.name))
            yield Finding(
                f"{len(lost)} in-flight stores of {state.name!r} belong to no registered consumer ({lost[0]})",
                "what is in them is run by nobody",
                f"register it as one whose lease has run out: redis-cli ZADD '{registry}' 0 '{lost[0]}'; "
                "a worker of the queue then takes over",
            )
        elif registered and not state.consumers and state.in_flight:
            yield Finding(
                f"{state.in_flight} messages of {state.name!r} are in flight at workers that are gone",
                "the next worker of this queue takes them over; none is running",
                f"opsq{_app_flag(look)} worker -Q {state.name}",
            )


def versions(look: Look) -> Iterator[Finding]:
    """Workers of different versions of opsq."""
    found = {str(each["version"]) for each in look.workers if each["version"]} | {__version__}
    if look.workers and len(found) > 1:
        others = sorted({f"{each['node']} {each['version']}" for each in look.workers})[:_NAMED]
        yield Finding(
            f"opsq {' and '.join(sorted(found))} run together ({', '.join(others)}; this is {__version__})",
            "what one of them sends the other may not understand",
            "install one version everywhere, then opsq restart worker",
        )


def celery_unacked(look: Look) -> Iterator[Finding]:
    """Messages that Celery's workers took and never acknowledged."""
    client, prefix = look.broker.client, look.broker.key
    with errors(look.broker.url):
        count: Any = client.hlen(prefix(keys.UNACKED))
        oldest: Any = client.zrange(prefix(keys.UNACKED_INDEX), 0, 0, withscores=True)
    if not count:
        return
    age_s = time.time() - oldest[0][1] if oldest else 0.0
    if not workers.celery_waits(look.broker):
        yield Finding(
            f"{count} messages lie in Celery's {keys.UNACKED!r}, the oldest for {age_s / 60:.0f} minutes",
            "a Celery worker took them and is gone; they come back after visibility_timeout (an hour by default)",
            "an opsq worker of their queues puts them back then; a Celery worker that is started and stopped, at once",
        )


def dead(look: Look) -> Iterator[Finding]:
    """Dead letters that nobody has looked at."""
    for state in look.queues:
        if state.dead:
            yield Finding(
                f"{counted(state.dead, 'dead letter')} of {state.name!r}",
                "these tasks failed for good, were lost with their process, or cannot be read",
                f"opsq dead --queue {state.name}, then opsq dead requeue ID or opsq dead drop ID",
            )


def _app_flag(look: Look) -> str:
    return f" -A {look.app.main}" if look.app_named and look.app.main else ""
