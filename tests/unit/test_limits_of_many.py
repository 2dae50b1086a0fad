"""Time limits of what runs at the same time: each is raised once, in its order, and what has ended leaves nothing."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsq.concurrency.base import HardLimit
from opsq.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from opsq.worker import runs, slots
from opsq.worker.batch import Held
from opsq.worker.deadlines import Deadlines
from opsq.worker.runs import Run, Runs
from opsq.worker.slots import Facts, Slots


class Noted:
    """Notes what is raised where."""

    def __init__(self) -> None:
        self.raised: list[tuple[int, type[BaseException]]] = []

    def interrupt(self, job: Run, error: type[BaseException]) -> None:
        self.raised.append((job.held.number, error))


class Many:
    """What runs, without tasks."""

    def __init__(self, table: Slots) -> None:
        self.slot, self.waiting, self.place = table.slot(0), deque[Held](), Noted()
        self.runs = Runs(self.slot, self.waiting, lambda: True, lambda: None, threading.Lock())

    def begin(self, number: int, soft_ns: int = 0, hard_ns: int = 0) -> Run:
        self.waiting.append(Held(number, 0, "celery", b""))
        self.runs.allowed = 1
        run = self.runs.take()
        assert run is not None
        run.place = self.place
        self.runs.begin(number, 1, soft_ns, hard_ns)
        return run


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Many]:
    table = Slots.create(tmp_path / "x.slots", Facts("w@h:0badcafe", ["celery"], "", [1]))
    yield Many(table)
    table.let_go()


def test_limits_are_raised_in_their_order_and_only_where_something_runs(many: Many) -> None:
    many.begin(1, 40, 50)
    ended = many.begin(2, 20, 30)
    many.begin(3, 0, 10)
    many.begin(4, 0, 2**62)
    many.runs.ended(ended, True)
    left_s = many.runs.look_at_limits()
    assert many.place.raised == [(3, HardLimit), (1, SoftTimeLimitExceeded), (1, HardLimit)]
    assert left_s is not None
    assert 0 < left_s <= runs.REACT_S


def test_a_soft_limit_that_is_the_hard_one_too_does_not_take_its_place(many: Many) -> None:
    run = many.begin(1, 10, 10)
    many.runs.look_at_limits()
    assert many.place.raised == [(1, SoftTimeLimitExceeded), (1, HardLimit)]
    assert isinstance(run.verdict, TimeLimitExceeded)


def test_a_limit_of_a_revoked_task_leaves_it_revoked_and_is_no_reason_to_end_the_child(many: Many) -> None:
    run = many.begin(1, 10, 20)
    many.runs.end_revoked(1, 15)
    revoked = run.verdict
    many.runs.look_at_limits()
    assert run.verdict is revoked
    assert not many.runs.stuck


def test_the_parent_watches_the_task_whose_hard_limit_comes_first(many: Many) -> None:
    late = many.begin(1, 0, 2**62)
    soon = many.begin(2, 0, 2**61)
    assert many.slot.words[slots.CURRENT] == 2
    many.runs.ended(soon, True)
    assert many.slot.words[slots.CURRENT] == 1
    many.runs.ended(late, True)
    assert many.slot.words[slots.CURRENT] == 0


def test_only_tasks_that_still_run_count_as_stuck(many: Many, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "REACT_S", 0.0)
    first, second = many.begin(1, 0, 10), many.begin(2)
    while not many.runs.stuck:
        many.runs.look_at_limits()
    assert not many.runs.give_up()
    many.runs.ended(second, True)
    assert many.runs.give_up()
    many.runs.ended(first, True)
    assert not many.runs.stuck
    assert not many.runs.give_up()


def test_limits_of_what_has_ended_are_not_kept() -> None:
    running = {0}
    deadlines = Deadlines(running)
    deadlines.add(2**62, 0)
    for number in range(1, 10_000):
        running.add(number)
        deadlines.add(time.monotonic_ns() + 10**12, number)
        running.discard(number)
    assert len(deadlines) < 200
    assert deadlines.first() == (2**62, 0)
