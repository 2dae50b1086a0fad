"""A schedule as plain data, so that it can be kept in Redis and shown where the app is not; and as a short text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from opsq.schedules.base import schedule
from opsq.schedules.clocked import clocked
from opsq.schedules.crontab import crontab
from opsq.schedules.solar import solar
from opsq.utils.time import humanize_duration


def to_data(found: Any) -> dict[str, Any] | None:
    """One of our own kinds as data; None for classes of the program's own."""
    if type(found) is schedule:
        return {"every": found.seconds, "relative": found.relative}
    if type(found) is crontab:
        return {"crontab": found.text}
    if type(found) is solar:
        return {"solar": [found.event, found.lat, found.lon]}
    if type(found) is clocked:
        return {"clocked": found.clocked_time.timestamp()}
    return None


def from_data(data: Mapping[str, Any]) -> Any:
    """The schedule. Raises ValueError, ParseException, ImproperlyConfigured."""
    if "every" in data:
        return schedule(timedelta(seconds=float(data["every"])), bool(data.get("relative")))
    if "crontab" in data:
        return crontab.from_string(str(data["crontab"]))
    if "solar" in data:
        return solar(*data["solar"])
    if "clocked" in data:
        return clocked(datetime.fromtimestamp(float(data["clocked"]), UTC))
    raise ValueError("a schedule has one of 'every', 'crontab', 'solar', 'clocked'")


def to_text(found: Any) -> str:
    """For people: `every 30s`, `0 8 * * mon-fri`, `sunset at 52.5, 13.4`."""
    if type(found) is schedule:
        return f"every {humanize_duration(found.seconds)}"
    if type(found) is crontab:
        return found.text
    if type(found) is solar:
        return f"{found.event} at {found.lat}, {found.lon}"
    if type(found) is clocked:
        return f"once at {found.clocked_time:%Y-%m-%d %H:%M:%S} UTC"
    return str(found)
