"""Which tasks the history keeps under load: so many a second, failures first, and each kept one to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from support import event_source

from opsq.monitor.intake import Intake
from opsq.monitor.record import Event, Record


class Stored(dict[str, Record]):
    """What Redis would have."""

    def find(self, ids: Sequence[str]) -> dict[str, Record]:
        return {each: self[each] for each in ids if each in self}


def events(*calls: list[dict[str, Any]]) -> list[Event]:
    return [msgspec.convert(each, Event) for call in calls for each in call]


def test_few_tasks_are_all_kept() -> None:
    intake = Intake(Stored().find)
    outcome = intake.take(events(*(event_source.call(task_id=str(n)) for n in range(100))), 1.0)
    assert len(outcome.changed) == 100
    assert outcome.skipped == 0


def test_what_ends_is_kept_or_counted_as_skipped() -> None:
    intake = Intake(Stored().find, kept_per_s=10, trouble_per_s=10)
    outcome = intake.take(events(*(event_source.call(task_id=str(n)) for n in range(1000))), 1.0)
    assert len(outcome.changed) + outcome.skipped == 1000
    assert len(outcome.changed) < 50


def test_failures_have_room_when_successes_have_none() -> None:
    intake = Intake(Stored().find, kept_per_s=10, trouble_per_s=100)
    calls = [event_source.call(task_id=f"ok-{n}") for n in range(500)]
    calls += [event_source.call(end="task-failed", task_id=f"bad-{n}") for n in range(100)]
    outcome = intake.take(events(*calls), 1.0)
    assert sum(record.state == "FAILURE" for record in outcome.changed) == 100


def test_a_task_that_is_kept_is_kept_to_its_end() -> None:
    intake = Intake(Stored().find, kept_per_s=1, trouble_per_s=1)
    intake.take(events(event_source.call(end="none", task_id="long")), 1.0)
    intake.take(events(*(event_source.call(task_id=str(n)) for n in range(500))), 0.0)
    outcome = intake.take(events(event_source.call(task_id="long")), 0.0)
    assert [record.state for record in outcome.changed if record.id == "long"] == ["SUCCESS"]


def test_a_long_task_without_room_comes_in_later() -> None:
    intake = Intake(Stored().find, kept_per_s=2, trouble_per_s=1)
    intake.take(events(*(event_source.call(task_id=str(n)) for n in range(500))), 0.0)
    assert not intake.take(events(event_source.call(end="none", task_id="long")), 0.0).changed
    later = intake.take([], 1.0).changed
    assert [(record.id, record.state) for record in later] == [("long", "STARTED")]


def test_what_redis_knows_is_not_lost_when_late_events_come() -> None:
    stored = Stored(t1=Record("t1", name="proj.add", state="SUCCESS", result="5", updated=2000.0, finished=2000.0))
    outcome = Intake(stored.find).take(events(event_source.call(end="none", task_id="t1", at=1000.0)), 1.0)
    assert [(record.state, record.result) for record in outcome.changed] == [("SUCCESS", "5")]


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["task-succeeded", "task-failed", "none"])), max_size=60))
def test_every_end_is_kept_or_skipped_whatever_comes(runs: list[tuple[int, str]]) -> None:
    intake = Intake(Stored().find, kept_per_s=3, trouble_per_s=2)
    kept: set[str] = set()
    skipped = 0
    for number, (task, end) in enumerate(runs):
        outcome = intake.take(events(event_source.call(end=end, task_id=f"{number}-{task}", at=1000.0)), 0.05)
        kept.update(record.id for record in outcome.changed if not record.open)
        skipped += outcome.skipped
    assert len(kept) + skipped == sum(end != "none" for _task, end in runs)
