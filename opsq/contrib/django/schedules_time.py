"""Points in time as the tables of django-celery-beat hold them, with and without USE_TZ."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.utils import timezone

#: A crontab's columns in the order of `crontab`'s arguments.
FIELDS = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")


def aware() -> bool:
    """Whether crontabs are in zones of their own (DJANGO_CELERY_BEAT_TZ_AWARE, that package's setting)."""
    return bool(getattr(settings, "DJANGO_CELERY_BEAT_TZ_AWARE", True))


def zone(name: Any) -> ZoneInfo:
    """The time zone of this name. Raises ValueError."""
    try:
        return ZoneInfo(str(name))
    except (KeyError, OSError, ValueError):
        raise ValueError(f"there is no time zone {str(name)!r}") from None


def meant(value: datetime) -> datetime:
    """What somebody has entered, aware: without USE_TZ it is in Django's time zone."""
    aware_value: datetime = timezone.make_aware(value) if timezone.is_naive(value) else value
    return aware_value


def run_at(value: datetime) -> float:
    """`last_run_at` in Unix seconds: that package writes UTC where it is told to be unaware of zones."""
    naive = timezone.is_naive(value)
    return (value.replace(tzinfo=UTC) if naive and not aware() else meant(value)).timestamp()


def to_run_at(unix_s: float) -> datetime:
    """The same for the column."""
    moment = datetime.fromtimestamp(unix_s, UTC)
    if settings.USE_TZ:
        return moment
    naive: datetime = timezone.make_naive(moment, UTC if not aware() else None)
    return naive


def to_meant(moment: datetime) -> datetime:
    """A point in time for a column that people fill in."""
    if settings.USE_TZ:
        return meant(moment)
    naive: datetime = moment if timezone.is_naive(moment) else timezone.make_naive(moment)
    return naive
