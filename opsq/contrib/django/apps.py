"""`opsq.contrib.django` in INSTALLED_APPS: tables of schedules, the admin, `manage.py opsq`, checks of the settings."""

from __future__ import annotations

import importlib
from contextlib import suppress

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import register

from opsq.contrib.django import checks
from opsq.contrib.django.tasks import BACKEND


class OpsqConfig(AppConfig):
    """The Django app."""

    name = "opsq.contrib.django"
    label = "opsq"
    verbose_name = "opsq"
    default_auto_field = "django.db.models.AutoField"

    def ready(self) -> None:
        """Have the settings checked, calls sent by an app, and what is edited in this project told to the beat."""
        from opsq.contrib.django import project, schedules_models

        project.use_settings_app()
        if any(params.get("BACKEND") == BACKEND for params in getattr(settings, "TASKS", {}).values()):
            with suppress(ImportError):  # said by Django to whoever uses it
                importlib.import_module("opsq.contrib.django.tasks_interface")  # it has checks of its own
        for check in checks.ALL:
            register(check, checks.TAG)
        schedules_models.watch()
