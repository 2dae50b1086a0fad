"""`opsq.contrib.django` in INSTALLED_APPS: the tables of schedules, and the admin."""

from __future__ import annotations

from django.apps import AppConfig


class OpsqConfig(AppConfig):
    """The Django app."""

    name = "opsq.contrib.django"
    label = "opsq"
    verbose_name = "opsq"
    default_auto_field = "django.db.models.AutoField"

    def ready(self) -> None:
        """Have what is edited by whomever in this project told to the beat."""
        from opsq.contrib.django import schedules_models

        schedules_models.watch()
