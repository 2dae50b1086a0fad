"""The tables of django-celery-beat 2.9."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models

from opsq.contrib.django.adoption import AdoptTables
from opsq.contrib.django.schedules_models import default_zone

THEIRS = (
    "0001_initial",
    "0002_auto_20161118_0346",
    "0003_auto_20161209_0049",
    "0004_auto_20170221_0000",
    "0005_add_solarschedule_events_choices",
    "0006_auto_20180210_1226",
    "0006_auto_20180322_0932",
    "0006_periodictask_priority",
    "0007_auto_20180521_0826",
    "0008_auto_20180914_1922",
    "0009_periodictask_headers",
    "0010_auto_20190429_0326",
    "0011_auto_20190508_0153",
    "0012_periodictask_expire_seconds",
    "0013_auto_20200609_0727",
    "0014_remove_clockedschedule_enabled",
    "0015_edit_solarschedule_events_choices",
    "0016_alter_crontabschedule_timezone",
    "0017_alter_crontabschedule_month_of_year",
    "0018_improve_crontab_helptext",
    "0019_alter_periodictasks_options",
)


def row(name: str, fields: list[Any], **options: Any) -> Any:
    """An unmanaged model of that package's table."""
    key = [] if name == "PeriodicTasks" else [("id", models.AutoField(primary_key=True))]
    table = f"django_celery_beat_{name.lower()}"
    return migrations.CreateModel(name, [*key, *fields], {"managed": False, "db_table": table, **options})


def kind(name: str) -> Any:
    """A column that names a schedule."""
    return models.ForeignKey(f"opsq.{name}", models.CASCADE, null=True, blank=True)


class Migration(migrations.Migration):
    initial = True
    dependencies: list[Any] = []
    operations = [
        row(
            "IntervalSchedule",
            [("every", models.IntegerField()), ("period", models.CharField(max_length=24))],
            verbose_name="interval",
            ordering=("period", "every"),
        ),
        row(
            "CrontabSchedule",
            [
                ("minute", models.CharField(max_length=240, default="*")),
                ("hour", models.CharField(max_length=96, default="*")),
                ("day_of_week", models.CharField(max_length=64, default="*")),
                ("day_of_month", models.CharField(max_length=124, default="*")),
                ("month_of_year", models.CharField(max_length=64, default="*")),
                ("timezone", models.CharField(max_length=63, default=default_zone)),
            ],
            verbose_name="crontab",
            ordering=("month_of_year", "day_of_month", "day_of_week", "hour", "minute", "timezone"),
        ),
        row(
            "SolarSchedule",
            [
                ("event", models.CharField(max_length=24)),
                ("latitude", models.DecimalField(max_digits=9, decimal_places=6)),
                ("longitude", models.DecimalField(max_digits=9, decimal_places=6)),
            ],
            unique_together={("event", "latitude", "longitude")},
            verbose_name="solar event",
            ordering=("event", "latitude", "longitude"),
        ),
        row(
            "ClockedSchedule",
            [("clocked_time", models.DateTimeField())],
            verbose_name="point in time",
            verbose_name_plural="points in time",
            ordering=("clocked_time",),
        ),
        row(
            "PeriodicTasks",
            [
                ("ident", models.SmallIntegerField(default=1, primary_key=True, unique=True)),
                ("last_update", models.DateTimeField()),
            ],
        ),
        row(
            "PeriodicTask",
            [
                ("name", models.CharField(max_length=200, unique=True)),
                ("task", models.CharField(max_length=200)),
                ("interval", kind("intervalschedule")),
                ("crontab", kind("crontabschedule")),
                ("solar", kind("solarschedule")),
                ("clocked", kind("clockedschedule")),
                ("args", models.TextField(blank=True, default="[]")),
                ("kwargs", models.TextField(blank=True, default="{}")),
                ("queue", models.CharField(max_length=200, blank=True, null=True)),
                ("exchange", models.CharField(max_length=200, blank=True, null=True)),
                ("routing_key", models.CharField(max_length=200, blank=True, null=True)),
                ("headers", models.TextField(blank=True, default="{}")),
                ("priority", models.PositiveIntegerField(blank=True, null=True)),
                ("expires", models.DateTimeField(blank=True, null=True)),
                ("expire_seconds", models.PositiveIntegerField(blank=True, null=True)),
                ("one_off", models.BooleanField(default=False)),
                ("start_time", models.DateTimeField(blank=True, null=True)),
                ("enabled", models.BooleanField(default=True)),
                ("last_run_at", models.DateTimeField(blank=True, null=True)),
                ("total_run_count", models.PositiveIntegerField(default=0)),
                ("date_changed", models.DateTimeField(auto_now=True)),
                ("description", models.TextField(blank=True)),
            ],
            verbose_name="periodic task",
        ),
        AdoptTables(
            "django_celery_beat",
            (
                *("IntervalSchedule", "CrontabSchedule", "SolarSchedule", "ClockedSchedule"),
                *("PeriodicTasks", "PeriodicTask"),
            ),
            THEIRS,
        ),
    ]
