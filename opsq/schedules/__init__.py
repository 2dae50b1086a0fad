"""Schedules of periodic tasks, under Celery's names (`from opsq.schedules import crontab`)."""

from datetime import timedelta as timedelta

from opsq.schedules.base import BaseSchedule as BaseSchedule
from opsq.schedules.base import maybe_schedule as maybe_schedule
from opsq.schedules.base import schedstate as schedstate
from opsq.schedules.base import schedule as schedule
from opsq.schedules.clocked import clocked as clocked
from opsq.schedules.crontab import crontab as crontab
from opsq.schedules.fields import ParseException as ParseException
from opsq.schedules.fields import crontab_parser as crontab_parser
from opsq.schedules.solar import solar as solar

__all__ = (
    "BaseSchedule",
    "ParseException",
    "clocked",
    "crontab",
    "crontab_parser",
    "maybe_schedule",
    "schedstate",
    "schedule",
    "solar",
    "timedelta",
)
