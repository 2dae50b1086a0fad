"""Schedules are due when Celery's own are: same fields, same times, same nights where Celery is right."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from support.celery_schedules import CelerySchedules
from support.peer import PeerError

from opsq import App
from opsq.schedules import crontab, crontab_parser, schedule

#: (how many values, the first one) of each field.
SIZES = {"minute": (60, 0), "hour": (24, 0), "day_of_week": (7, 0), "day_of_month": (31, 1), "month_of_year": (12, 1)}
NAMES = ("mon", "Sunday", "fri", "jan", "December", "may", "xyz", "")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Auckland")


@pytest.fixture(scope="module")
def celery(celery_python: Path) -> Iterator[CelerySchedules]:
    peer = CelerySchedules(celery_python)
    yield peer
    peer.close()


def app_in(zone: str, **settings: Any) -> App:
    return App("schedules", set_as_current=False, timezone=zone, **settings)


# -- fields ------------------------------------------------------------------------------------------------------------

numbers = st.one_of(st.integers(-1, 61).map(str), st.sampled_from(NAMES))
parts = st.one_of(
    numbers,
    st.just("*"),
    st.builds("{}-{}".format, numbers, numbers),
    st.builds("*/{}".format, st.integers(0, 70)),
    st.builds("{}-{}/{}".format, numbers, numbers, st.sampled_from(["", "1", "2", "5", "0", "mon"])),
    st.builds("{}/{}".format, numbers, st.integers(0, 9)),
)
texts = st.lists(parts, min_size=1, max_size=4).map(",".join)


@settings(max_examples=400)
@given(text=texts, field=st.sampled_from(sorted(SIZES)))
@example(text="*/15", field="minute")
@example(text="mon-fri,sun", field="day_of_week")
@example(text="22-5/2", field="hour")
@example(text="7", field="day_of_week")
@example(text="5/10", field="minute")
@example(text="", field="hour")
def test_a_field_means_what_it_means_to_celery(celery: CelerySchedules, text: str, field: str) -> None:
    count, first = SIZES[field]
    try:
        wanted: Any = celery.field(text, count, first)
    except PeerError as refused:
        wanted = str(refused)
    try:
        found: Any = crontab_parser(count, first).parse(text)
    except Exception as error:
        found = type(error).__name__
    assert found == wanted


# -- times -------------------------------------------------------------------------------------------------------------


def values(field: str) -> st.SearchStrategy[str]:
    count, first = SIZES[field]
    one = st.integers(first, first + count - 1)
    listed = st.lists(one, min_size=1, max_size=4).map(lambda found: ",".join(map(str, found)))
    stepped = st.integers(1, count).map("*/{}".format)
    return st.one_of(st.just("*"), listed, stepped)


crontabs = st.fixed_dictionaries({field: values(field) for field in SIZES})
moments = st.integers(
    int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2029, 1, 1, tzinfo=UTC).timestamp())
)


def made(fields: dict[str, str], zone: str, now: float, **conf: Any) -> crontab:
    try:
        return crontab(**fields, app=app_in(zone, **conf), nowfun=lambda: datetime.fromtimestamp(now, ZoneInfo(zone)))
    except ValueError:
        assume(False)  # the 31st of February
        raise


def is_put_back(start: float, end: float, zone: str) -> bool:
    """Whether the clock is put back in this time, or shows an hour for the second time."""

    def offset(unix_s: float) -> timedelta:
        found = datetime.fromtimestamp(unix_s, ZoneInfo(zone)).utcoffset()
        assert found is not None
        return found

    hours = range(int(start) - 7200, int(min(end, start + 400 * 86_400)) + 7200, 1800)
    return any(offset(hour) > offset(hour + 1800) for hour in hours)


@settings(max_examples=200)
@given(fields=crontabs, zone=st.sampled_from(ZONES), last=moments, later=st.integers(0, 200_000))
def test_a_crontab_is_due_when_celerys_is(
    celery: CelerySchedules, fields: dict[str, str], zone: str, last: int, later: int
) -> None:
    now = last + later
    ours = made(fields, zone, now)
    moment = datetime.fromtimestamp(last, ZoneInfo(zone))
    try:
        wanted_s = celery.remaining_s("crontab", fields, zone, last, now)
    except PeerError:  # Celery gives up on days that come once in many years
        assume(False)
        raise
    assume(not is_put_back(last, now + max(wanted_s, 0), zone))
    assert ours.remaining_estimate(moment).total_seconds() == wanted_s
    due, again_s = celery.is_due("crontab", fields, zone, last, now)
    found = ours.is_due(moment)
    assert found.is_due == due
    if not is_put_back(now, now + again_s, zone):
        assert found.next == pytest.approx(again_s)


@settings(max_examples=60)
@given(last=moments, later=st.integers(0, 20_000), deadline_s=st.integers(0, 7200))
def test_the_starting_deadline_is_celerys(celery: CelerySchedules, last: int, later: int, deadline_s: int) -> None:
    fields, now = {"minute": "*/30", "hour": "*/2"}, last + later
    ours = made(fields, "UTC", now, beat_cron_starting_deadline=deadline_s)
    wanted = celery.is_due("crontab", fields, "UTC", last, now, deadline_s)
    assert tuple(ours.is_due(datetime.fromtimestamp(last, UTC))) == (wanted[0], pytest.approx(wanted[1]))


@settings(max_examples=100)
@given(
    every=st.one_of(st.integers(1, 200_000), st.sampled_from([60, 3600, 86_400, 7 * 86_400])),
    relative=st.booleans(),
    last=moments,
    later=st.integers(0, 100_000),
    zone=st.sampled_from(["UTC", "Asia/Kolkata"]),
)
def test_an_interval_is_due_when_celerys_is(
    celery: CelerySchedules, every: int, relative: bool, last: int, later: int, zone: str
) -> None:
    now = last + later
    clock = datetime.fromtimestamp(now, ZoneInfo(zone))
    ours = schedule(every, relative, nowfun=lambda: clock, app=app_in(zone))
    arguments = {"run_every": float(every), "relative": relative}
    found = ours.is_due(datetime.fromtimestamp(last, ZoneInfo(zone)))
    assert tuple(found) == pytest.approx(celery.is_due("schedule", arguments, zone, last, now))


# -- nights ------------------------------------------------------------------------------------------------------------

SPRING = [("Europe/Berlin", "2026-03-28T22:00+01:00"), ("America/New_York", "2026-03-07T22:00-05:00")]
AUTUMN = [("Europe/Berlin", "2026-10-24T22:00+02:00"), ("America/New_York", "2026-10-31T22:00-04:00")]
NIGHTLY = [
    {"minute": "30", "hour": "2"},
    {"minute": "30", "hour": "1"},
    {"minute": "0", "hour": "3"},
    {"minute": "*/20", "hour": "1,2,3"},
    {"minute": "15", "hour": "*/2"},
    {"minute": "5", "hour": "2", "day_of_week": "sun"},
]
ALWAYS = [{"minute": "*/15"}, {"minute": "30"}, {"minute": "0"}, {"minute": "7,52", "day_of_week": "sat,sun"}]


def ours(fields: dict[str, str], zone: str, start: float, end: float) -> list[float]:
    found: list[float] = []
    made = crontab(**fields, app=app_in(zone))
    moment = made.next_after(datetime.fromtimestamp(start, UTC))
    while moment.timestamp() <= end:
        found.append(moment.timestamp())
        moment = made.next_after(moment)
    return found


def night(start: str) -> tuple[float, float]:
    begin = datetime.fromisoformat(start).timestamp()
    return begin, begin + 30 * 3600


@pytest.mark.parametrize("fields", [*NIGHTLY, *ALWAYS], ids=str)
@pytest.mark.parametrize(("zone", "start"), SPRING)
def test_the_night_in_spring_is_celerys(celery: CelerySchedules, zone: str, start: str, fields: dict[str, str]) -> None:
    times = ours(fields, zone, *night(start))
    assert times == celery.times(fields, zone, *night(start))
    assert times


@pytest.mark.parametrize("fields", NIGHTLY, ids=str)
@pytest.mark.parametrize(("zone", "start"), AUTUMN)
def test_certain_hours_in_the_night_in_autumn_are_celerys(
    celery: CelerySchedules, zone: str, start: str, fields: dict[str, str]
) -> None:
    times = ours(fields, zone, *night(start))
    assert times == celery.times(fields, zone, *night(start))
    assert times


@pytest.mark.parametrize("fields", ALWAYS, ids=str)
@pytest.mark.parametrize(("zone", "start"), AUTUMN)
def test_every_hour_means_every_hour_though_celery_leaves_the_second_one_out(
    celery: CelerySchedules, zone: str, start: str, fields: dict[str, str]
) -> None:
    times, theirs = (find(fields, zone, *night(start)) for find in (ours, celery.times))
    left_out = set(times) - set(theirs)
    assert set(theirs) <= set(times)
    assert left_out
    assert all(datetime.fromtimestamp(time, ZoneInfo(zone)).fold == 1 for time in left_out)
    assert times == [float(time) for time in minutes_of(night(start)) if matches(crontab(**fields), time, zone)]


def minutes_of(span: tuple[float, float]) -> range:
    return range(int(span[0]) + 60, int(span[1]) + 1, 60)


def matches(wanted: crontab, unix_s: float, zone: str) -> bool:
    face = datetime.fromtimestamp(unix_s, ZoneInfo(zone))
    return face.minute in wanted.minute and face.isoweekday() % 7 in wanted.day_of_week
