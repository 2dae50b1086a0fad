"""What `opsq why` says where workers are busy with themselves: stored facts in, words out."""

from __future__ import annotations

from typing import Any

import pytest

from opsq.broker.depths import QueueState
from opsq.broker.whereabouts import Place
from opsq.cli.reasons import Facts, Reason, explain

NOW = 1_800_000_000.0
WORKER: dict[str, Any] = {"id": "web@one:0badcafe", "queues": ["celery"], "tasks": ["proj.add"], "children": []}


def reason(place: Place, **facts: Any) -> Reason:
    told: dict[str, Any] = {
        "places": [place],
        "losses": [],
        "result": None,
        "history": None,
        "searched": ["celery"],
        "queues": {"celery": QueueState("celery", {0: 1}, 0, 0, 0, None, 0, False)},
        "workers": [],
        "limits": {},
        "revoked": False,
        "celery_waits": False,
        "keeps_results": True,
        "now": NOW,
    }
    return explain(Facts(id="an-id", **{**told, **facts}))


def test_a_queue_whose_workers_start_their_children_is_not_called_abandoned() -> None:
    waiting = Place("waiting", "celery", "proj.add")
    assert reason(waiting).state == "no consumer"
    told = reason(waiting, workers=[WORKER])
    assert told.sentence == (
        "proj.add waits in 'celery', next: web@one is there for the queue, but no child takes from it just now"
    )
    assert told.next == "opsq workers"
    for kind in ("delayed", "limited"):
        place = Place(kind, "celery", "proj.add", due_ms=int(NOW * 1000) + 5000)  # type: ignore[arg-type]
        assert "no worker" in reason(place).sentence
        assert "no worker" not in reason(place, workers=[WORKER]).sentence


def test_a_retry_that_is_due_later_says_when_where_and_why() -> None:
    result = {"error": {"type": "ValueError", "message": "no"}, "name": None}
    place = Place("delayed", "celery", "proj.add", retries=1, due_ms=int(NOW * 1000) + 5000)
    told = reason(place, result=result, workers=[WORKER]).sentence
    assert told.startswith("proj.add failed and is tried again: it is due at ")
    assert told.endswith(" (in 5s) in 'celery'; ValueError: no")


def test_a_child_of_many_that_has_not_said_that_it_runs_anything_is_not_said_to() -> None:
    child = {"slot": 0, "pid": 0, "running": 0, "most": 4, "number": 0, "since": NOW}
    place = Place(
        "in flight", "celery", "proj.add", holder="web@one:0badcafe:0", number=1, lease_ms=int(NOW * 1000) + 9000
    )
    told = reason(place, workers=[{**WORKER, "children": [child]}])
    assert told.state == "reserved"
    assert told.sentence == "proj.add is in the hands of web@one, which has not said that it runs"


def test_how_its_limits_stand_is_said_with_what_waits_for_them() -> None:
    place = Place("limited", "celery", "proj.add", reason="task proj.add", ahead=2)
    told = reason(place, workers=[WORKER], limits={"task proj.add": "5/s, circuit open 3s"})
    assert told.sentence == "proj.add waits for the limits of the task proj.add, behind 2 others: 5/s, circuit open 3s"


@pytest.mark.parametrize("kind", ["delayed", "limited"])
def test_that_its_queue_is_paused_is_said_of_what_does_not_wait_in_it_yet(kind: Any) -> None:
    place = Place(kind, "celery", "proj.add", due_ms=int(NOW * 1000) + 5000)
    paused = {"celery": QueueState("celery", {}, 0, 0, 0, None, 1, True)}
    told = reason(place, queues=paused)
    assert "paused" in told.sentence
    assert told.next == "opsq queues resume celery"
