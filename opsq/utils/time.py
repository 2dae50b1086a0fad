"""Times and durations: aware datetimes, ISO-8601 as Celery writes it, "5m" as people write it."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"\s*([\d.]+)\s*(ms|s|m|h|d|w)?", re.IGNORECASE)


def utcnow() -> datetime:
    """Now, aware, in UTC."""
    return datetime.now(UTC)


def local_zone() -> tzinfo:
    """The machine's time zone, by name if it has one: so its nights of change are known, not only today's offset."""
    where = Path("/etc/localtime")
    for name in (os.environ.get("TZ", "").removeprefix(":"), str(where.resolve()).partition("zoneinfo/")[2]):
        try:
            if name:
                return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            continue
    try:
        with where.open("rb") as file:
            return ZoneInfo.from_file(file, "local")
    except (OSError, ValueError):
        return datetime.now().astimezone().tzinfo or UTC


def make_aware(value: datetime, zone: tzinfo) -> datetime:
    """A naive time is taken as one of `zone`; an aware one stays."""
    return value.replace(tzinfo=zone) if value.tzinfo is None else value


def parse_iso(text: str, zone: tzinfo = UTC) -> datetime:
    """An ISO-8601 time; a naive one is taken as one of `zone`. Raises ValueError."""
    return make_aware(datetime.fromisoformat(text), zone)


def parse_duration(text: str) -> float:
    """Seconds of "90", "5m", "1h30m" or "250ms". Raises ValueError."""
    position, total = 0, 0.0
    while position < len(text.rstrip()):
        match = _DURATION.match(text, position)
        if match is None:
            raise ValueError(f"{text!r} is no duration: write 90, 5m, 1h30m or 250ms")
        total += float(match[1]) * _UNITS[(match[2] or "s").lower()]
        position = match.end()
    if not position:
        raise ValueError("an empty duration: write 90, 5m, 1h30m or 250ms")
    return total


def humanize_duration(seconds: float) -> str:
    """Short words for a span: 0.07ms, 12ms, 0.3s, 42s, 5m 3s, 2h 5m, 3d 4h."""
    if 0 < seconds < 0.0995:
        return f"{seconds * 1000:.0f}ms" if seconds >= 0.00095 else f"{seconds * 1000:.1g}ms"
    if seconds < 10:
        return f"{seconds:.1f}s".replace(".0s", "s")
    whole = int(seconds)
    for unit, size, lower, lower_size in (("d", 86_400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // lower_size
            return f"{whole // size}{unit} {rest}{lower}" if rest else f"{whole // size}{unit}"
    return f"{whole}s"


def maybe_timedelta(value: timedelta | float | None) -> timedelta | None:
    """Seconds or a timedelta as a timedelta."""
    return timedelta(seconds=value) if isinstance(value, int | float) else value
