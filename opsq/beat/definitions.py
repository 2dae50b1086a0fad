"""What a program (`beat_schedule`) or an operator (`opsq schedule add`) wrote, read into entries.

What cannot be understood is named with its key and left out; the others run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from opsq.beat.entry import MISSED_LIMIT, Entry
from opsq.exceptions import ImproperlyConfigured, OpsqError, did_you_mean
from opsq.schedules import ParseException, crontab, maybe_schedule, portable, schedule

#: Celery's keys of an entry, and ours.
KEYS = (
    *("task", "schedule", "args", "kwargs", "options", "relative"),
    *("jitter", "overlap", "missed", "missed_limit", "missed_age", "timezone", "enabled"),
)
#: The task that removes old results, and its entry.
CLEANUP = "celery.backend_cleanup"
MISSED = ("once", "all", "none")
OVERLAP = ("allow", "skip")


@dataclass(frozen=True, slots=True)
class Definitions:
    """The entries by name, and a sentence about each that was left out."""

    entries: Mapping[str, Entry]
    problems: tuple[str, ...]


def of_app(app: Any) -> Definitions:
    """What the app's settings and `add_periodic_task` say. Raises ImproperlyConfigured when it is no mapping at all."""
    given = app.conf.beat_schedule or {}
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured("cannot use beat_schedule", why=f"it is {type(given).__name__}, no mapping of names")
    return read(app, {**_cleanup(app), **given, **app.periodic_tasks}, "app")


def _cleanup(app: Any) -> dict[str, Any]:
    """Celery's own entry, where results do not expire by themselves; at the broker, where they are unless a place is
    named, they do.
    """
    conf = app.conf
    if conf.result_backend is None or not conf.result_expires or app.backend.expires_itself:
        return {}
    nightly = {"task": CLEANUP, "schedule": crontab(minute="0", hour="4"), "options": {"expires": 12 * 3600}}
    return {CLEANUP: nightly}


def read(app: Any, given: Mapping[Any, Any], source: str) -> Definitions:
    """Read entries; `source` says whose they are ("app" or "added")."""
    entries: dict[str, Entry] = {}
    problems = []
    for name, definition in given.items():
        try:
            entries[str(name)] = _entry(app, str(name), definition, source)
        except (OpsqError, ParseException, ValueError, TypeError, KeyError) as error:
            problems.append(f"beat_schedule[{str(name)!r}] is left out: {_reason(error)}")
    return Definitions(entries, tuple(problems))


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    return str(error) + (f" ({error.hint})" if isinstance(error, OpsqError) and error.hint else "")


def _entry(app: Any, name: str, given: Any, source: str) -> Entry:
    if not isinstance(given, Mapping):
        raise TypeError(f"it is {type(given).__name__}, not a mapping with 'task' and 'schedule'")
    for key in ("task", "schedule"):
        if given.get(key) is None:
            raise ValueError(_why_missing(key, given))
    for key in given:
        if key not in KEYS:
            hint = did_you_mean(str(key), KEYS)
            raise ValueError(f"there is no key {key!r}" + (f", {hint}" if hint else ""))
    task = given["task"]
    found = _schedule(app, given)
    age = _seconds(given, "missed_age")
    if age is None and isinstance(found, crontab):
        age = app.conf.beat_cron_starting_deadline
    return Entry(
        name=name,
        task=str(getattr(task, "name", task)),
        schedule=found,
        args=tuple(_kind(given, "args", (list, tuple), "a list") or ()),
        kwargs=_kind(given, "kwargs", Mapping, "a mapping") or {},
        options=_kind(given, "options", Mapping, "a mapping") or {},
        jitter=_seconds(given, "jitter") or 0.0,
        overlap=_word(given, "overlap", OVERLAP),
        missed=_word(given, "missed", MISSED),
        missed_age=age,
        enabled=bool(given.get("enabled", True)),
        source=source,
        missed_limit=MISSED_LIMIT if given.get("missed_limit") is None else _count(given["missed_limit"]),
    )


def _why_missing(key: str, given: Mapping[Any, Any]) -> str:
    inner = [name for name, value in given.items() if isinstance(value, Mapping) and "task" in value]
    if inner:
        return f"it has no {key!r} but holds entries ({', '.join(map(repr, inner[:3]))}): move them one level up"
    return f"it has no {key!r}"


def _schedule(app: Any, given: Mapping[str, Any]) -> Any:
    """The schedule, in the zone of the entry if it has one of its own."""
    found = given["schedule"]
    if isinstance(found, Mapping):
        found = portable.from_data(found)
    elif isinstance(found, str):
        raise ValueError(f"its schedule is the text {found!r}: write crontab.from_string({found!r})")
    elif not isinstance(found, int | float | timedelta) and not hasattr(found, "is_due"):
        raise TypeError(f"its schedule is {found!r}: neither seconds, nor a timedelta, nor a schedule")
    made = maybe_schedule(copy.copy(found), bool(given.get("relative")), app=app)
    if isinstance(made, schedule) and not made.seconds >= 0.001:
        raise ValueError("its schedule is shorter than a millisecond")
    if given.get("timezone"):
        made.tz = _zone(given["timezone"])
    return made


def _zone(name: Any) -> Any:
    if not isinstance(name, str):
        return name
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError(f"there is no time zone {name!r}") from None


def _kind(given: Mapping[str, Any], key: str, kind: Any, words: str) -> Any:
    value = given.get(key)
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"its {key} is {value!r}, not {words}")
    return value


def _word(given: Mapping[str, Any], key: str, words: Iterable[str]) -> str:
    known = tuple(words)
    value = given.get(key, known[0])
    if value not in known:
        raise ValueError(f"its {key} is {value!r}, not one of {', '.join(known)}")
    return str(value)


def _seconds(given: Mapping[str, Any], key: str) -> float | None:
    value = given.get(key)
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    return _number(seconds, key, float)


def _count(value: Any) -> int:
    return int(_number(value, "missed_limit", int))


def _number(value: Any, key: str, kind: Callable[[Any], float]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"its {key} is {value!r}, not a number of zero or more")
    return kind(value)
