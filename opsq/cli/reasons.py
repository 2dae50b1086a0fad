"""Why a task is where it is, in one sentence with the next step: stored facts in, words out. Asks nobody anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opsq import states
from opsq.broker import workers
from opsq.broker.depths import QueueState
from opsq.broker.losses import Loss
from opsq.broker.whereabouts import Place
from opsq.cli.output import counted, harmless, local_time
from opsq.utils.time import humanize_duration

#: Most characters of an error that the sentence repeats.
_TOLD = 200
#: Most queues that it names.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is stored of a task. `result`: its record as scripts get it, None where nothing is stored; `history`:
    what the monitor has kept; `searched`: the queues; `workers`: those that live; `limits`: how those stand that it
    waits for, by whose they are ("task proj.mail"); `revoked`: whether its id is; `now`: by the server (Unix seconds).
    """

    id: str
    places: Sequence[Place]
    losses: Sequence[Loss]
    result: Mapping[str, Any] | None
    history: Mapping[str, Any] | None
    searched: Sequence[str]
    queues: Mapping[str, QueueState]
    workers: Sequence[Mapping[str, Any]]
    limits: Mapping[str, str]
    revoked: bool
    celery_waits: bool
    keeps_results: bool
    now: float

    def serving(self, queue: str) -> list[Mapping[str, Any]]:
        """The workers that live and are there for a queue, also while none of their children takes from it."""
        return workers.serving(self.workers, queue)

    def is_served(self, queue: str) -> bool:
        """Whether anybody of opsq's is there for it."""
        return bool(self.queues[queue].consumers or self.serving(queue))

    @property
    def name(self) -> str:
        """The task's name where it is known."""
        of_places = next((place.task for place in self.places if place.task), None)
        of_records = next((told["name"] for told in (self.result, self.history) if told and told.get("name")), None)
        return harmless(of_places or of_records or "the task")


@dataclass(frozen=True, slots=True)
class Reason:
    """`state`: one word for scripts; the sentence; the command that comes next, empty where there is none."""

    state: str
    sentence: str
    next: str = ""


def explain(facts: Facts) -> Reason:
    """The reason; where a task has several messages, of the one that matters first."""
    for place in sorted(facts.places, key=lambda place: _ORDER.index(place.kind)):
        return _OF_PLACE[place.kind](facts, place)
    return _ended(facts) or _unknown(facts)


# -- where it is -------------------------------------------------------------------------------------------------------


def _in_flight(facts: Facts, place: Place) -> Reason:
    assert place.holder is not None
    assert place.lease_ms is not None
    node = place.holder.rsplit(":", 2)[0]
    again = _again(facts, place)
    children = [(worker["id"], child) for worker in facts.workers for child in worker["children"]]
    child = next((child for owner, child in children if f"{owner}:{child['slot']}" == place.holder), None)
    if place.lease_ms / 1000 < facts.now:
        since = _clock(place.lease_ms / 1000)
        told = f"{facts.name} is held by {node}, whose lease ran out at {since}"
        if facts.is_served(place.queue):
            return Reason("held by the lost", f"{told}; a worker of {place.queue!r} takes over within seconds{again}")
        return Reason(
            "held by the lost",
            f"{told}, and no worker of {place.queue!r} is left to take over{again}",
            _worker(place.queue),
        )
    if child is not None and (child.get("most") or 1) > 1 and child.get("running"):
        many = f"(pid {child['pid']}), which runs {counted(child['running'], 'task')} at once"
        return Reason("running", f"{facts.name} is in the hands of {node} {many}{again}", "opsq tasks")
    if child is None or child.get("number") != place.number:
        told = f"{facts.name} is in the hands of {node}, which has not said that it runs"
        return Reason("reserved", f"{told}{again}", "opsq workers")
    span = humanize_duration(max(facts.now - child["since"], 0))
    told = f"{facts.name} runs on {node} (pid {child['pid']}) since {_clock(child['since'])} ({span}){again}"
    return Reason("running", told, "opsq tasks")


def _waiting(facts: Facts, place: Place) -> Reason:
    queue = facts.queues[place.queue]
    ahead = "next" if not place.ahead else f"behind {counted(place.ahead, 'other')}"
    told = f"{facts.name} waits in {place.queue!r}, {ahead}"
    again = _not_to_run(facts, place) + _again(facts, place)
    if queue.paused:
        return Reason("paused", f"{told}: the queue is paused{again}", f"opsq queues resume {place.queue}")
    serving = facts.serving(place.queue)
    if not queue.consumers and serving:
        nodes = ", ".join(harmless(worker["id"].rpartition(":")[0]) for worker in serving[:_NAMED])
        quiet = f"{nodes} is there for the queue, but no child takes from it just now"
        return Reason("waiting", f"{told}: {quiet}{again}", "opsq workers")
    if not queue.consumers and facts.celery_waits:
        return Reason(
            "waiting", f"{told}: Celery's workers may take it, none of opsq's consumes it{again}", _worker(place.queue)
        )
    if not queue.consumers:
        return Reason("no consumer", f"{told}: no worker consumes the queue{again}", _worker(place.queue))
    if (
        serving
        and place.task
        and not any(worker["tasks"] is None or place.task in worker["tasks"] for worker in serving)
    ):
        return Reason("unknown task", f"{told}: none of the queue's workers knows this task{again}", "opsq doctor")
    busy = sum(map(workers.busy, serving))
    taking = counted(queue.consumers, "child takes", "children take")
    return Reason(
        "waiting",
        f"{told}: {taking} from the queue, {busy} busy{again}",
        f"opsq queues peek {place.queue}",
    )


def _limited(facts: Facts, place: Place) -> Reason:
    ahead = "next" if not place.ahead else f"behind {counted(place.ahead, 'other')}"
    told = f"{facts.name} waits for the limits of the {harmless(place.reason or 'task')}, {ahead}"
    if stand := facts.limits.get(place.reason or ""):
        told += f": {harmless(stand)}"
    if not facts.is_served(place.queue):
        return Reason("limited", f"{told}; no worker consumes {place.queue!r}", _worker(place.queue))
    if facts.queues[place.queue].paused:
        return Reason("limited", f"{told}; {place.queue!r} is paused", f"opsq queues resume {place.queue}")
    return Reason("limited", f"{told}{_not_to_run(facts, place)}{_again(facts, place)}", "opsq limits")


def _delayed(facts: Facts, place: Place) -> Reason:
    assert place.due_ms is not None
    due = place.due_ms / 1000
    when = f"is due at {_clock(due)} (in {humanize_duration(max(due - facts.now, 0))})"
    told, error = f"{facts.name} {when}", ""
    if place.retries:
        told = f"{facts.name} failed and is tried again: it {when}"
        error = f"; {_error(facts)}" if _error(facts) else ""
    if not facts.is_served(place.queue):
        told = f"{told}, and no worker of opsq consumes {place.queue!r} to move it there{error}"
        return Reason("delayed", told, _worker(place.queue))
    more = error + _not_to_run(facts, place) + _again(facts, place)
    if facts.queues[place.queue].paused:
        told = f"{told} in {place.queue!r}, which is paused{more}"
        return Reason("delayed", told, f"opsq queues resume {place.queue}")
    return Reason("delayed", f"{told} in {place.queue!r}{more}", "opsq queues")


def _with_celery(facts: Facts, place: Place) -> Reason:
    since = f" since {_clock(place.since)}" if place.since else ""
    told = f"{facts.name} is in the hands of a Celery worker{since}"
    return Reason(
        "with celery",
        f"{told}; if that one is gone, a worker of {place.queue!r} takes it after visibility_timeout",
        "opsq doctor",
    )


def _dead(facts: Facts, place: Place) -> Reason:
    at = f" since {_clock(place.since)}" if place.since else ""
    where = f" (on {harmless(place.host)})" if place.host else ""
    told = f"{facts.name} is dead{at}{where}: {_cut(place.reason or 'no reason is known')}"
    if place.deliveries:
        told += f"; it had been given back {_times(place.deliveries)} before"
    return Reason("dead", told, f"opsq dead show {facts.id}, then opsq dead requeue {facts.id}")


#: A message that runs says more than one that waits.
_ORDER = ("in flight", "celery", "waiting", "limited", "delayed", "dead")
_OF_PLACE: Mapping[str, Callable[[Facts, Place], Reason]] = {
    "in flight": _in_flight,
    "waiting": _waiting,
    "limited": _limited,
    "delayed": _delayed,
    "celery": _with_celery,
    "dead": _dead,
}


# -- what came of it ---------------------------------------------------------------------------------------------------


def _ended(facts: Facts) -> Reason | None:
    """By its result, else by the monitor's history."""
    if facts.result is not None:
        at, state, worker = facts.result["done"], facts.result["state"], facts.result["worker"]
        more, command = "", f"opsq results {facts.id}"
    elif facts.history is not None:
        told = facts.history
        at, state, worker = told["finished"] or told["updated"], told["state"], told["worker"]
        more = "; its result is not there (any more)"
        command = f"opsq results {facts.id}"
    else:
        return None
    when = (f" at {_clock(at)}" if at else "") + (f" on {harmless(worker)}" if worker else "")
    again = _again(facts) + more
    if state == states.SUCCESS:
        return Reason("succeeded", f"{facts.name} succeeded{when}{again}", command)
    if state == states.FAILURE:
        return Reason("failed", f"{facts.name} failed{when}: {_error(facts) or 'no error is known'}{again}", command)
    if state == states.REVOKED:
        word = _error(facts) or "revoked"
        expired = "expired" in word
        if expired:
            return Reason(
                "expired", f"{facts.name} was not run: it had expired when it was taken{when}{again}", command
            )
        return Reason("revoked", f"{facts.name} was revoked{when}{again}", command)
    return Reason(
        "gone", f"{facts.name} was last seen as {state}{when}, and no message of it is left{again}", "opsq audit"
    )


def _unknown(facts: Facts) -> Reason:
    if facts.losses:
        last = facts.losses[-1]
        return Reason("gone", f"nothing of {facts.id} is left but this: {_told(last)}", "opsq audit")
    kept = "" if facts.keeps_results else "; this app keeps no results"
    where = ", ".join(facts.searched[:_NAMED]) + (", ..." if len(facts.searched) > _NAMED else "")
    told = (
        f"nothing is known of {facts.id} in {where}: it was never sent here, or it has ended and what came of it was "
    )
    return Reason("unknown", f"{told}not kept or has expired{kept}", f"opsq why {facts.id} --queue NAME")


# -- words -------------------------------------------------------------------------------------------------------------


def _again(facts: Facts, place: Place | None = None) -> str:
    """Why it is not the first time, if it is not."""
    lost = [loss for loss in facts.losses if loss.fate == "back"]
    if not lost and (place is None or not place.deliveries):
        return ""
    if not lost:
        assert place is not None
        return f"; it was given back {_times(place.deliveries)}, its holder having been lost"
    return f"; it was given back {_times(len(lost))}: {_told(lost[-1])}"


def _not_to_run(facts: Facts, place: Place) -> str:
    """Whether it is to be run no more, or until when."""
    if facts.revoked:
        return "; it was revoked: who takes it throws it away"
    if place.expires is None:
        return ""
    if place.expires <= facts.now:
        return f"; it has expired at {_clock(place.expires)}: who takes it throws it away"
    return f"; it expires at {_clock(place.expires)} (in {humanize_duration(place.expires - facts.now)})"


def _told(loss: Loss) -> str:
    how = "while it ran there or may have" if loss.started else "before it had started"
    return f"{harmless(loss.node)} lost it at {_clock(loss.time)}, {how} ({_cut(loss.why)})"


def _error(facts: Facts) -> str:
    """The error that is stored, in a few words."""
    if facts.result is not None and facts.result["error"]:
        error = facts.result["error"]
        return _cut(f"{error['type']}: {error['message']}")
    if facts.history is not None:
        return _cut(facts.history["exception"] or facts.history["note"] or "")
    return ""


def _worker(queue: str) -> str:
    return f"opsq worker -Q {queue}"


def _clock(unix_s: float) -> str:
    """The time of day; with the date unless it is today's."""
    told = local_time(unix_s)
    return told.partition(" ")[2] if told[:10] == local_time(time.time())[:10] else told


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _cut(text: str) -> str:
    text = harmless(" ".join(text.split()))
    return text if len(text) <= _TOLD else text[: _TOLD - 1] + "…"
