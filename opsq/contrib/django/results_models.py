"""The tables of django-celery-results 2.6, whoever has made them: that package, or our migrations.

The models are unmanaged, so that they may stand beside that package's own; their indexes are in `migrations/`, which
makes the tables where there are none.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models

from opsq import states

#: That package's setting: MySQL's indexes may want shorter ids.
ID_LENGTH = getattr(settings, "DJANGO_CELERY_RESULTS_TASK_ID_MAX_LENGTH", 255)


class TaskResult(models.Model):
    """What is known of one task."""

    task_id = models.CharField(max_length=ID_LENGTH, unique=True)
    periodic_task_name = models.CharField(max_length=255, null=True)
    task_name = models.CharField(max_length=ID_LENGTH, null=True)
    task_args = models.TextField(null=True)
    task_kwargs = models.TextField(null=True)
    status = models.CharField("state", max_length=50, default=states.PENDING)
    worker = models.CharField(max_length=100, default=None, null=True)
    content_type = models.CharField(max_length=128)
    content_encoding = models.CharField(max_length=64)
    result = models.TextField(null=True, default=None, editable=False)
    date_created = models.DateTimeField("created", auto_now_add=True)
    date_started = models.DateTimeField("started", null=True, default=None)
    date_done = models.DateTimeField("done", auto_now=True)
    traceback = models.TextField(blank=True, null=True)
    meta = models.TextField(null=True, default=None, editable=False)

    class Meta:
        app_label = "opsq"
        managed = False
        db_table = "django_celery_results_taskresult"
        verbose_name = "task result"
        ordering = ("-date_done",)

    def __str__(self) -> str:
        return f"{self.task_id} ({self.status})"


class ChordCounter(models.Model):
    """How many parts of a chord have not ended, and the results of all of them (JSON).

    A Celery worker removes the row with the last part; ours leaves 0 until the chord's body was sent.
    """

    group_id = models.CharField(max_length=ID_LENGTH, unique=True)
    sub_tasks = models.TextField()
    count = models.PositiveIntegerField()

    class Meta:
        app_label = "opsq"
        managed = False
        db_table = "django_celery_results_chordcounter"

    def __str__(self) -> str:
        return f"{self.group_id} ({self.count})"


class GroupResult(models.Model):
    """Which results a group has that was saved."""

    group_id = models.CharField(max_length=ID_LENGTH, unique=True)
    date_created = models.DateTimeField("created", auto_now_add=True)
    date_done = models.DateTimeField("saved", auto_now=True)
    content_type = models.CharField(max_length=128)
    content_encoding = models.CharField(max_length=64)
    result = models.TextField(null=True, default=None, editable=False)

    class Meta:
        app_label = "opsq"
        managed = False
        db_table = "django_celery_results_groupresult"
        verbose_name = "group result"
        ordering = ("-date_done",)

    def __str__(self) -> str:
        return str(self.group_id)
