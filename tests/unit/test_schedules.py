"""Schedules by themselves: times on the clock's face, nights of change, the sun, plain data."""

from __future__ import annotations

import pickle
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsq import App
from opsq.exceptions import ImproperlyConfigured
from opsq.schedules import ParseException, crontab, maybe_schedule, portable, schedule, solar
from tests.support.manual_clock import ManualClock

APP = App("schedules", set_as_current=False, timezone="Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def following(wanted: Any, start: str, count: int) -> list[str]:
    found, moment = [], at(start)
    for _ in range(count):
        moment = wanted.next_after(moment)
        found.append(moment.astimezone(wanted.tz).strftime("%d. %H:%M%z"))
    return found


def test_days_are_those_in_all_three_fields() -> None:
    wanted = crontab(minute=0, hour=0, day_of_month="13", day_of_week="fri", app=APP)
    assert following(wanted, "2026-01-01T00:00Z", 3) == ["13. 00:00+0100", "13. 00:00+0100", "13. 00:00+0100"]
    assert wanted.next_after(at("2026-04-01T00:00Z")).date().isoformat() == "2026-11-12"  # UTC, an hour before


def test_the_29th_of_february_is_found_in_a_leap_year() -> None:
    assert crontab(0, 12, day_of_month=29, month_of_year=2, app=APP).next_after(at("2026-01-01T00:00Z")).year == 2028


@pytest.mark.parametrize(
    ("wanted", "start", "times"),
    [
        (crontab(30, 2), "2026-03-28T20:00Z", ["29. 03:30+0200", "30. 02:30+0200"]),
        (crontab("*/30"), "2026-03-29T00:00Z", ["29. 01:30+0100", "29. 03:00+0200", "29. 03:30+0200"]),
        (crontab(30, 2), "2026-10-24T20:00Z", ["25. 02:30+0200", "26. 02:30+0100"]),
        (
            crontab("*/30"),
            "2026-10-24T23:45Z",
            ["25. 02:00+0200", "25. 02:30+0200", "25. 02:00+0100", "25. 02:30+0100", "25. 03:00+0100"],
        ),
    ],
)
def test_the_two_nights_of_change(wanted: crontab, start: str, times: list[str]) -> None:
    wanted.app = APP
    assert following(wanted, start, len(times)) == times


@settings(max_examples=60)
@given(
    minutes=st.sets(st.integers(0, 59), min_size=1, max_size=4),
    start=st.integers(1_774_000_000, 1_806_000_000),
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
)
def test_a_crontab_of_every_hour_is_due_in_every_hour_there_is(minutes: set[int], start: int, zone: str) -> None:
    start -= start % 60
    wanted = crontab(minute=minutes, app=App("schedules", set_as_current=False, timezone=zone))
    found = wanted.next_after(datetime.fromtimestamp(start, UTC)).timestamp()
    faces = (
        (time, datetime.fromtimestamp(time, ZoneInfo(zone)).minute) for time in range(start + 60, start + 9000, 60)
    )
    assert found == next(time for time, minute in faces if minute in minutes)


def test_relative_intervals_are_rounded_down() -> None:
    daily = schedule(timedelta(days=1), relative=True, app=APP)
    assert following(daily, "2026-03-28T14:00Z", 2) == ["29. 00:00+0100", "30. 00:00+0200"]
    hourly = schedule(7200, relative=True, app=APP)
    assert following(hourly, "2026-01-01T10:20Z", 2) == ["01. 13:00+0100", "01. 15:00+0100"]


@pytest.mark.parametrize(
    "broken", [{"minute": "61"}, {"hour": "-1"}, {"minute": "1-5-7"}, {"day_of_week": 7}, {"hour": ""}, {"hour": "a"}]
)
def test_what_is_no_crontab_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises((ValueError, ParseException)):
        crontab(**broken)


def test_a_day_that_never_comes_is_refused() -> None:
    with pytest.raises(ValueError, match="never occurs"):
        crontab(day_of_month="30-31", month_of_year="feb")


def test_schedules_are_compared_copied_and_shown() -> None:
    given = crontab("*/5", [1, 2], "mon-fri")
    assert pickle.loads(pickle.dumps(given)) == given == crontab.from_string("*/5 1,2 * * mon-fri")
    assert given != crontab("*/5")
    assert repr(given) == "<crontab: */5 [1, 2] * * mon-fri (m/h/dM/MY/d)>"
    assert repr(schedule(90)) == "<freq: 1.50 minutes>"
    assert schedule(90) == timedelta(seconds=90) == maybe_schedule(90).run_every


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (schedule(30), "every 30s"),
        (crontab("*/5", [3, 1]), "*/5 1,3 * * *"),
        (crontab(0, 8, "mon-fri", 1, "jan"), "0 8 1 jan mon-fri"),
        (solar("sunset", 52.5, 13.4), "sunset at 52.5, 13.4"),
    ],
)
def test_plain_data_is_the_same_schedule(given: Any, text: str) -> None:
    data = portable.to_data(given)
    assert data is not None
    assert portable.from_data(data) == given
    assert portable.to_text(given) == text


def test_the_sun_sets_once_a_day() -> None:
    sunset = solar("sunset", 52.52, 13.40, app=APP)
    moment, times = at("2026-06-20T12:00Z"), []
    for _ in range(5):
        moment = sunset.next_after(moment)
        times.append(moment)
    assert [time.day for time in times] == [20, 21, 22, 23, 24]
    assert all(time.hour == 19 and 30 <= time.minute <= 36 for time in times)
    assert solar("sunrise", 80, 20, app=APP).next_after(at("2026-11-01T00:00Z")).month in (1, 2, 3)  # polar night


def test_the_sun_needs_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ephem", None)
    with pytest.raises(ImproperlyConfigured, match="ephem") as told:
        solar("sunset", 0, 0)
    assert "pip install" in told.value.hint


@pytest.mark.parametrize("given", [("noon", 0, 0), ("sunset", 91, 0), ("sunset", 0, 181)])
def test_what_the_sun_does_not_do_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="invalid"):
        solar(*given)


def test_a_clock_of_ones_own_counts() -> None:
    early = crontab(0, 12, app=APP, nowfun=lambda: at("2026-01-01T10:00+01:00"))
    assert early.is_due(at("2025-12-31T13:00+01:00")) == (False, 7200.0)
    late = crontab(0, 12, app=APP, nowfun=lambda: at("2026-01-01T12:30+01:00"))
    assert late.is_due(at("2025-12-31T13:00+01:00")) == (True, 84_600.0)


def test_a_manual_clock_moves_only_by_hand() -> None:
    clock = ManualClock(100.0)
    assert (clock.now(), clock.wait(5), clock.now(), clock.monotonic()) == (100.0, [], 105.0, 105.0)
