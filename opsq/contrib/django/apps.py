"""`opsq.contrib.django` in INSTALLED_APPS: tables of schedules, the admin, `manage.py opsq`, checks of the settings."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register

from opsq.contrib.django import checks


class OpsqConfig(AppConfig):
    """The Django app."""

    name = "opsq.contrib.django"
    label = "opsq"
    verbose_name = "opsq"
    default_auto_field = "django.db.models.AutoField"

    def ready(self) -> None:
        """Have the settings checked, and what is edited by whomever in this project told to the beat."""
        from opsq.contrib.django import schedules_models

        for check in checks.ALL:
            register(check, checks.TAG)
        schedules_models.watch()
