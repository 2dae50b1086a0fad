"""Entries: what a program may write, what is made of missed runs, and what is said about what cannot be understood."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsq import App
from opsq.beat import BeatLazyFunc, definitions
from opsq.beat.entry import Entry
from opsq.exceptions import ImproperlyConfigured
from opsq.schedules import crontab, schedule

SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
#: A full hour (Unix ms).
NOW = 1_790_000_000_000 // HOUR * HOUR
APP = App("entries", set_as_current=False)


def read(given: Any, **settings: Any) -> definitions.Definitions:
    return definitions.of_app(App("entries", set_as_current=False, beat_schedule=given, **settings))


def entry(given: Any = 60, **more: Any) -> Entry:
    read = definitions.read(APP, {"it": {"task": "t", "schedule": given, **more}}, "app")
    assert read.problems == ()
    return read.entries["it"]


# -- missed runs -------------------------------------------------------------------------------------------------------

kinds = st.sampled_from([entry(7.0), entry(0.25), entry(crontab("*/7")), entry(crontab(0, "*/3"))])


@given(kind=kinds, served=st.integers(NOW - 26 * HOUR, NOW), limit=st.integers(1, 9))
def test_the_latest_runs_are_those_that_step_by_step_would_come_last(kind: Entry, served: int, limit: int) -> None:
    wanted, due = [], served
    while len(wanted) < 4000 and (due := kind.next_ms(due)) <= NOW:
        wanted.append(due)
    if len(wanted) < 4000:
        assert kind._latest(served, NOW, limit) == wanted[-limit:]


def test_missed_runs_are_made_up_by_one_unless_said_otherwise() -> None:
    served = NOW - 10 * MINUTE
    assert entry().due_between(served, NOW) == ([NOW], NOW)
    assert len(entry(missed="all").due_between(served, NOW)[0]) == 10
    assert entry(missed="all", missed_limit=3).due_between(served, NOW)[0] == [NOW - 2 * MINUTE, NOW - MINUTE, NOW]


def test_missed_runs_may_be_left_out() -> None:
    late = NOW + 45 * SECOND
    assert entry(missed="none").due_between(NOW - 10 * MINUTE, late) == ([], NOW)
    assert entry(missed="none").due_between(NOW - MINUTE, NOW + SECOND) == ([NOW], NOW)  # a takeover is no miss
    assert entry(missed_age=30).due_between(NOW - MINUTE, late) == ([], NOW)
    assert entry(missed="all", missed_age=90).due_between(NOW - 10 * MINUTE, late)[0] == [NOW]


def test_celerys_starting_deadline_counts_for_crontabs() -> None:
    found = read(
        {"c": {"task": "t", "schedule": crontab(0)}, "i": {"task": "t", "schedule": 60}},
        beat_cron_starting_deadline=30,
    ).entries
    assert (found["c"].missed_age, found["i"].missed_age) == (30, None)


def test_years_of_missed_runs_cost_nothing() -> None:
    assert entry(0.001).due_between(NOW - 10 * 365 * 24 * HOUR, NOW) == ([NOW], NOW)
    assert entry(crontab()).due_between(NOW - 10 * 365 * 24 * HOUR, NOW) == ([NOW], NOW)


def test_jitter_is_the_same_for_whoever_asks_and_never_beyond_the_next_run() -> None:
    jittered = entry(60, jitter=timedelta(seconds=600))
    delays = [jittered.delay_ms(NOW + run * MINUTE) for run in range(50)]
    assert delays == [entry(60, jitter=600).delay_ms(NOW + run * MINUTE) for run in range(50)]
    assert len(set(delays)) > 40
    assert all(0 <= delay < MINUTE for delay in delays)
    assert entry(60).delay_ms(NOW) == 0


def test_a_schedule_of_the_programs_own_is_asked() -> None:
    class Odd(schedule):
        def is_due(self, last_run_at: Any) -> Any:  # noqa: ARG002
            return False, 12.5

    assert entry(Odd(10)).is_asked
    assert entry(Odd(10)).asked_ms(NOW, NOW) == (False, NOW + 12_500)
    assert not entry(10).is_asked
    assert not entry(crontab()).is_asked


# -- definitions -------------------------------------------------------------------------------------------------------


def test_all_kinds_of_schedules_are_understood() -> None:
    given = [10, 2.5, timedelta(minutes=1), crontab(0, 8), schedule(5), {"every": 3}, {"crontab": "0 8 * * *"}]
    found = read({f"e{n}": {"task": "t", "schedule": each} for n, each in enumerate(given)})
    assert found.problems == ()
    assert len(found.entries) == len(given)


def test_the_old_name_of_the_setting_is_understood() -> None:
    app = App("old", set_as_current=False)
    app.conf.update(CELERYBEAT_SCHEDULE={"täglich": {"task": "t", "schedule": 60, "options": {"queue": "q"}}})
    assert definitions.of_app(app).entries["täglich"].options == {"queue": "q"}


def test_each_entry_has_its_time_zone() -> None:
    found = read(
        {
            "a": {"task": "t", "schedule": crontab(0, 8)},
            "b": {"task": "t", "schedule": crontab(), "timezone": "Asia/Tokyo"},
        },
        timezone="Europe/Berlin",
    )
    assert [found.entries[name].zone for name in "ab"] == ["Europe/Berlin", "Asia/Tokyo"]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"inner": {"task": "t", "schedule": 1}}, "one level up"),
        ({"task": "t"}, "has no 'schedule'"),
        ({"schedule": 5}, "has no 'task'"),
        ({"task": "t", "schedule": 5, "arg": [1]}, "no key 'arg', did you mean args"),
        ({"task": "t", "schedule": "*/5 * * * *"}, "crontab.from_string"),
        ({"task": "t", "schedule": object()}, "neither seconds"),
        ({"task": "t", "schedule": 0}, "shorter than a millisecond"),
        ({"task": "t", "schedule": -3}, "shorter than a millisecond"),
        ({"task": "t", "schedule": {"crontab": "61 * * * *"}}, "61"),
        ({"task": "t", "schedule": 5, "args": "abc"}, "not a list"),
        ({"task": "t", "schedule": 5, "kwargs": [1]}, "not a mapping"),
        ({"task": "t", "schedule": 5, "overlap": "never"}, "allow, skip"),
        ({"task": "t", "schedule": 5, "missed": "twice"}, "once, all, none"),
        ({"task": "t", "schedule": 5, "jitter": -1}, "jitter"),
        ({"task": "t", "schedule": 5, "timezone": "Mars/Olympus"}, "Mars/Olympus"),
        (7, "not a mapping"),
    ],
)
def test_a_malformed_entry_is_named_and_the_others_run(broken: Any, why: str) -> None:
    found = read({"kaputt": broken, "good": {"task": "t", "schedule": 60}})
    assert list(found.entries) == ["good"]
    assert len(found.problems) == 1
    assert "beat_schedule['kaputt'] is left out: " in found.problems[0]
    assert why in found.problems[0]


def test_a_schedule_that_is_no_mapping_is_an_error() -> None:
    with pytest.raises(ImproperlyConfigured, match="beat_schedule"):
        read([1, 2])


# -- add_periodic_task -------------------------------------------------------------------------------------------------


def test_programs_add_entries_when_the_app_is_configured_or_finalized() -> None:
    app = App("adds", set_as_current=False, beat_schedule={"first": {"task": "t", "schedule": 1}})

    @app.task(name="adds.work")
    def work(x: int, y: int = 0) -> int:
        return x + y

    @app.on_after_configure.connect
    def configured(sender: App, **_: Any) -> None:
        sender.add_periodic_task(10.0, work, args=(1,), kwargs={"y": 2}, name="second", expires=5, overlap="skip")

    @app.on_after_finalize.connect
    def finalized(sender: App, **_: Any) -> None:
        sender.add_periodic_task(crontab(0), {"task": "adds.work", "args": [2], "options": {"queue": "q"}}, [1])

    app.finalize()
    found = definitions.of_app(app)
    assert found.problems == ()
    assert list(found.entries) == ["first", "second", "adds.work(1, 2)"]
    second, third = found.entries["second"], found.entries["adds.work(1, 2)"]
    assert (second.task, second.args, second.kwargs) == ("adds.work", (1,), {"y": 2})
    assert (second.options, second.overlap) == ({"expires": 5}, "skip")
    assert (third.args, third.options) == ((1, 2), {"queue": "q"})


def test_lazy_arguments_are_computed_at_each_run() -> None:
    numbers = iter(range(9))
    lazy = entry(5, args=[BeatLazyFunc(next, numbers)], kwargs={"x": BeatLazyFunc(lambda: "y")})
    assert lazy.arguments() == ([0], {"x": "y"})
    assert lazy.arguments() == ([1], {"x": "y"})
