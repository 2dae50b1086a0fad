"""The tables of django-celery-results 2.6."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models

from opsq.contrib.django.adoption import AdoptTables
from opsq.contrib.django.results_models import ID_LENGTH

THEIRS = (
    "0001_initial",
    "0002_add_task_name_args_kwargs",
    "0003_auto_20181106_1101",
    "0004_auto_20190516_0412",
    "0005_taskresult_worker",
    "0006_taskresult_date_created",
    "0007_remove_taskresult_hidden",
    "0008_chordcounter",
    "0009_groupresult",
    "0010_remove_duplicate_indices",
    "0011_taskresult_periodic_task_name",
    "0012_taskresult_date_started",
    "0013_taskresult_django_cele_periodi_1993cf_idx",
    "0014_alter_taskresult_status",
)


def row(name: str, fields: list[Any], **options: Any) -> Any:
    """An unmanaged model of that package's table."""
    table = f"django_celery_results_{name.lower()}"
    key = ("id", models.AutoField(primary_key=True))
    return migrations.CreateModel(name, [key, *fields], {"managed": False, "db_table": table, **options})


def index(column: str, digits: str) -> Any:
    """An index as that package calls it."""
    return models.Index(fields=[column], name=f"django_cele_{column[:7]}_{digits}_idx")


CONTENT = [
    ("content_type", models.CharField(max_length=128)),
    ("content_encoding", models.CharField(max_length=64)),
    ("result", models.TextField(null=True, default=None, editable=False)),
]


class Migration(migrations.Migration):
    dependencies = [("opsq", "0001_schedules")]
    operations = [
        row(
            "TaskResult",
            [
                ("task_id", models.CharField(max_length=ID_LENGTH, unique=True)),
                ("periodic_task_name", models.CharField(max_length=255, null=True)),
                ("task_name", models.CharField(max_length=ID_LENGTH, null=True)),
                ("task_args", models.TextField(null=True)),
                ("task_kwargs", models.TextField(null=True)),
                ("status", models.CharField(max_length=50, default="PENDING")),
                ("worker", models.CharField(max_length=100, default=None, null=True)),
                *CONTENT,
                ("date_created", models.DateTimeField(auto_now_add=True)),
                ("date_started", models.DateTimeField(null=True, default=None)),
                ("date_done", models.DateTimeField(auto_now=True)),
                ("traceback", models.TextField(blank=True, null=True)),
                ("meta", models.TextField(null=True, default=None, editable=False)),
            ],
            verbose_name="task result",
            ordering=("-date_done",),
            indexes=[
                index("task_name", "08aec9"),
                index("status", "9b6201"),
                index("worker", "d54dd8"),
                index("date_created", "f04a50"),
                index("date_done", "f59aad"),
                index("periodic_task_name", "1993cf"),
            ],
        ),
        row(
            "ChordCounter",
            [
                ("group_id", models.CharField(max_length=ID_LENGTH, unique=True)),
                ("sub_tasks", models.TextField()),
                ("count", models.PositiveIntegerField()),
            ],
        ),
        row(
            "GroupResult",
            [
                ("group_id", models.CharField(max_length=ID_LENGTH, unique=True)),
                ("date_created", models.DateTimeField(auto_now_add=True)),
                ("date_done", models.DateTimeField(auto_now=True)),
                *CONTENT,
            ],
            verbose_name="group result",
            ordering=("-date_done",),
            indexes=[index("date_created", "bd6c1d"), index("date_done", "caae0e")],
        ),
        AdoptTables("django_celery_results", ("TaskResult", "ChordCounter", "GroupResult"), THEIRS),
    ]
