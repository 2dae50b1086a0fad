"""The tables of django-celery-beat 2.9, whoever has made them: that package, or our migrations.

The models are unmanaged, so that they may stand beside that package's own; `migrations/` makes the tables where there
are none. The app that they belong to need not be in INSTALLED_APPS to be read.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import available_timezones

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.signals import post_delete, post_save
from django.utils import timezone

from opsq.contrib.django import schedules_time, shown_time
from opsq.protocol import jsontypes
from opsq.schedules import ParseException, clocked, crontab, schedule, solar

PERIODS = ("days", "hours", "minutes", "seconds", "microseconds")
EVENTS = (
    *("dawn_astronomical", "dawn_civil", "dawn_nautical", "dusk_astronomical", "dusk_civil", "dusk_nautical"),
    *("solar_noon", "sunrise", "sunset"),
)
#: The columns of an entry of which one names its schedule.
KINDS = ("interval", "crontab", "solar", "clocked")


def default_zone() -> str:
    """The zone of a new crontab: CELERY_TIMEZONE, else UTC."""
    zone = getattr(settings, "CELERY_TIMEZONE", None)
    return str(zone) if str(zone) in available_timezones() else "UTC"


def check_zone(name: str) -> None:
    """Raises ValidationError."""
    if name not in available_timezones():
        raise ValidationError(f"there is no time zone {name!r}")


class IntervalSchedule(models.Model):
    """Every so many periods."""

    #: Programs name a period by these.
    DAYS, HOURS, MINUTES, SECONDS, MICROSECONDS = PERIODS
    PERIOD_CHOICES = tuple((name, name.capitalize()) for name in PERIODS)

    every = models.IntegerField("number of periods", validators=[MinValueValidator(1)])
    period = models.CharField(max_length=24, choices=[(name, name) for name in PERIODS])

    class Meta:
        app_label = "opsq"
        managed = False
        db_table = "django_celery_beat_intervalschedule"
        verbose_name = "interval"
        ordering = ("period", "every")

    @property
    def schedule(self) -> Any:
        """As the beat has it. Raises OverflowError."""
        return schedule(timedelta(**{self.period: self.every}))

    def clean(self) -> None:
        """Raises ValidationError for a time that is too long to be counted."""
        with suppress(TypeError):  # of fields that have been told of by then
            try:
                _ = self.schedule
            except OverflowError:
                raise ValidationError({"every": "so long a time cannot be counted"}) from None

    def __str__(self) -> str:
        return f"every {self.period[:-1]}" if self.every == 1 else f"every {self.every} {self.period}"


class CrontabSchedule(models.Model):
    """The five fields of cron, and a time zone."""

    minute = models.CharField(max_length=240, default="*", help_text="0-59: *, */15, 0,30")
    hour = models.CharField(max_length=96, default="*", help_text="0-23: *, */2, 8-18")
    day_of_week = models.CharField(max_length=64, default="*", help_text="0-6, Sunday is 0: *, mon-fri")
    day_of_month = models.CharField(max_length=124, default="*", help_text="1-31: *, 1,15")
    month_of_year = models.CharField(max_length=64, default="*", help_text="1-12: *, 1-6")
    timezone = models.CharField(max_length=63, default=default_zone, validators=[check_zone])

    class Meta:
        app_label = "opsq"
        managed = False
        db_table = "django_celery_beat_crontabschedule"
        verbose_name = "crontab"
        ordering = ("month_of_year", "day_of_month", "day_of_week", "hour", "minute", "timezone")

    @property
    def schedule(self) -> Any:
        """As the beat has it. Raises ValueError, ParseException."""
        made = crontab(*(getattr(self, name).replace(" ", "") or "*" for name in schedules_time.FIELDS))
        if schedules_time.aware():
            made.tz = schedules_time.zone(self.timezone)
        return made

    def clean(self) -> None:
        """Raises ValidationError when the fields make no crontab."""
        try:
            _ = self.schedule
        except (ParseException, ValueError) as error:
            raise ValidationError(str(error)) from None

    def __str__(self) -> str:
        fields = (self.minute, self.hour, self.day_of_month, self.month_of_year, self.day_of_week)
        return " ".join(field.replace(" ", "") or "*" for field in fields) + f" {self.timezone}"


class SolarSchedule(models.Model):
    """What the sun does at a place."""

    event = models.CharField(max_length=24, choices=[(name, name.replace("_", " ")) for name in EVENTS])
    latitude = models.DecimalField(
        max_digits=9, decimal_places=6, validators=[MinValueValidator(-90), MaxValueValidator(90)]
    )
    longitude = models.DecimalField(
        max_digits=9, decimal_places=6, validators=[MinValueValidator(-180), MaxValueValidator(180)]
    )

    class Meta:
        app_label = "opsq"
        managed = False
        db_table = "django_celery_beat_solarschedule"
        verbose_name = "solar event"
        ordering = ("event", "latitude", "longitude")
        unique_together = (("event", "latitude", "longitude"),)

    @property
    def schedule(self) -> Any:
        """As the beat has it. Raises ImproperlyConfigured without ephem."""
        return solar(self.event, float(self.latitude), float(self.longitude))

    def __str__(self) -> str:
        return f"{self.event.replace('_', ' ')} at {self.latitude}, {self.longitude}"


class ClockedSchedule(models.Model):
    """A point in time."""

    clocked_time = models.DateTimeField("time")

    class Meta:
        app_label = "opsq"
        managed = False
        db_table = "django_celery_beat_clockedschedule"
        verbose_name = "point in time"
        verbose_name_plural = "points in time"
        ordering = ("clocked_time",)

    @property
    def schedule(self) -> Any:
        """As the beat has it."""
        return clocked(schedules_time.meant(self.clocked_time))

    def __str__(self) -> str:
        return shown_time.text(self.clocked_time)


class PeriodicTasks(models.Model):
    """One row that says when any entry was changed last: the beat looks at it."""

    ident = models.SmallIntegerField(default=1, primary_key=True, unique=True)
    last_update = models.DateTimeField()

    class Meta:
        app_label = "opsq"
        managed = False
        db_table = "django_celery_beat_periodictasks"

    @classmethod
    def update_changed(cls, **_told: Any) -> None:
        """Have the beat read the entries again: after `update()` or SQL, which tell nobody."""
        now = timezone.now()
        if not cls.objects.filter(ident=1).update(last_update=now):  # in SQLite, who reads first cannot wait to write
            cls.objects.update_or_create(ident=1, defaults={"last_update": now})

    @classmethod
    def changed(cls, _instance: Any, **_told: Any) -> None:
        """`update_changed`, as that package's programs call it with an entry."""
        cls.update_changed()

    @classmethod
    def last_change(cls) -> datetime | None:
        """When anything was changed last."""
        found: datetime | None = cls.objects.filter(ident=1).values_list("last_update", flat=True).first()
        return found


class PeriodicTask(models.Model):
    """One entry."""

    name = models.CharField(max_length=200, unique=True)
    task = models.CharField(max_length=200, help_text="Name of the task, such as proj.tasks.clean")
    interval = models.ForeignKey(IntervalSchedule, models.CASCADE, null=True, blank=True)
    crontab = models.ForeignKey(CrontabSchedule, models.CASCADE, null=True, blank=True)
    solar = models.ForeignKey(SolarSchedule, models.CASCADE, null=True, blank=True)
    clocked = models.ForeignKey(ClockedSchedule, models.CASCADE, null=True, blank=True)
    args = models.TextField(blank=True, default="[]", help_text='A JSON list: [2, "x"]')
    kwargs = models.TextField(blank=True, default="{}", help_text='A JSON object: {"to": "all"}')
    queue = models.CharField(max_length=200, blank=True, null=True, default=None, help_text="Default: as routed")
    exchange = models.CharField(max_length=200, blank=True, null=True, default=None)
    routing_key = models.CharField(max_length=200, blank=True, null=True, default=None)
    headers = models.TextField(blank=True, default="{}", help_text="A JSON object, sent with the message")
    priority = models.PositiveIntegerField(
        default=None, validators=[MaxValueValidator(255)], blank=True, null=True, help_text="0 is served first"
    )
    expires = models.DateTimeField(blank=True, null=True, help_text="No run after this time")
    expire_seconds = models.PositiveIntegerField(
        blank=True, null=True, help_text="A run that has waited so long in its queue is dropped"
    )
    one_off = models.BooleanField(default=False, help_text="It runs once, and is disabled then")
    start_time = models.DateTimeField(blank=True, null=True, help_text="No run before this time")
    enabled = models.BooleanField(default=True)
    last_run_at = models.DateTimeField(editable=False, blank=True, null=True)
    total_run_count = models.PositiveIntegerField(default=0, editable=False)
    date_changed = models.DateTimeField(auto_now=True)
    description = models.TextField(blank=True)

    class Meta:
        app_label = "opsq"
        managed = False
        db_table = "django_celery_beat_periodictask"
        verbose_name = "periodic task"

    @property
    def scheduler(self) -> Any:
        """The row of its schedule; None when it has none."""
        return next((getattr(self, kind) for kind in KINDS if getattr(self, f"{kind}_id") is not None), None)

    @property
    def schedule(self) -> Any:
        """When it is due, as the beat has it; None when it has no schedule."""
        return self.scheduler and self.scheduler.schedule

    def clean(self) -> None:
        """Raises ValidationError for what no beat could understand."""
        chosen = [kind for kind in KINDS if getattr(self, f"{kind}_id") is not None]
        if len(chosen) != 1:
            raise ValidationError(f"choose one of {', '.join(KINDS)}" + (f", not {len(chosen)}" if chosen else ""))
        if self.clocked_id is not None and not self.one_off:
            raise ValidationError({"one_off": "an entry of a point in time is a one-off"})
        if self.expires and self.expire_seconds is not None:
            raise ValidationError("choose one of expires and expire_seconds")
        for column, kind, words in (("args", list, "list"), ("kwargs", dict, "object"), ("headers", dict, "object")):
            try:
                right = isinstance(jsontypes.loads(getattr(self, column) or kind().__repr__()), kind)
            except ValueError as error:
                raise ValidationError({column: f"this is no JSON: {error}"}) from None
            if not right:
                raise ValidationError({column: f"this is no JSON {words}"})

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Empty texts are kept as that package keeps them."""
        for column in ("queue", "exchange", "routing_key"):
            setattr(self, column, getattr(self, column) or None)
        self.headers = self.headers or "{}"
        super().save(*args, **kwargs)

    def __str__(self) -> str:
        return f"{self.name}: {self.scheduler or 'no schedule'}"


def watch() -> None:
    """Tell the beat of what is saved and deleted from now on in this process."""
    for model in (IntervalSchedule, CrontabSchedule, SolarSchedule, ClockedSchedule, PeriodicTask):
        for signal in (post_save, post_delete):
            signal.connect(PeriodicTasks.update_changed, sender=model, dispatch_uid=f"opsq {model.__name__}")
