"""Checks of the app's schedule: entries that do not mean what they seem to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from opsq.cli.doctor.finding import Finding, Look


def zone(look: Look) -> Iterator[Finding]:
    """Hours without a time zone, on a host whose zone is not UTC."""
    conf = look.app.conf
    if conf.timezone is not None or not (time.timezone or time.daylight):
        return
    named = [name for name, crontab in _crontabs(look) if not _every(crontab, "hour", 24)]
    if named:
        yield Finding(
            f"{_listed(named)} of the schedule {'names' if len(named) == 1 else 'name'} hours, and no timezone is set",
            f"they are hours of UTC, not of this host's {time.tzname[0]}",
            f"set timezone = {_zone_here()!r} in the app's settings",
        )


def minutes(look: Look) -> Iterator[Finding]:
    """Entries with an hour and no minute."""
    for name, crontab in _crontabs(look):
        if not _every(crontab, "hour", 24) and _every(crontab, "minute", 60):
            yield Finding(
                f"the schedule's entry {name!r} has an hour and no minute",
                "it fires in each of the sixty minutes of that hour",
                f"write crontab(minute=0, hour=...) for {name!r}",
            )


def _crontabs(look: Look) -> Iterator[tuple[str, Any]]:
    schedule = look.app.conf.beat_schedule
    for name, entry in schedule.items() if isinstance(schedule, Mapping) else ():
        found = entry.get("schedule") if isinstance(entry, Mapping) else None
        if hasattr(found, "hour") and hasattr(found, "minute"):
            yield str(name), found


def _every(crontab: Any, field: str, count: int) -> bool:
    return len(getattr(crontab, field)) == count


def _listed(names: list[str]) -> str:
    if len(names) == 1:
        return f"the entry {names[0]!r}"
    return f"{len(names)} entries ({names[0]!r}, ...)"


def _zone_here() -> str:
    """The IANA name of this host's zone, as far as it tells."""
    try:
        with open("/etc/timezone") as file:
            return file.read().strip() or time.tzname[0]
    except OSError:
        return time.tzname[0]
