"""The app of a Django project that makes none itself (it has no `celery.py`): `-A opsq.contrib.django`.

It is made of the settings alone: those with the prefix `CELERY_`, and the tasks of INSTALLED_APPS. Results are kept in
the broker unless `CELERY_RESULT_BACKEND` names another place.
"""

from __future__ import annotations

import os
from pathlib import Path

from opsq.app.base import App
from opsq.config.broker import Found
from opsq.contrib.django.project import home_of_settings
from opsq.exceptions import UsageError
from opsq.project import find_django


class SettingsApp(App):
    """An app whose results have a place even where only the broker is named."""

    def find_results(self) -> Found:
        """Where results go and who said so."""
        if self.conf.result_backend is None:
            broker = self.find_broker()
            return Found(broker.url, f"as the broker: {broker.source}")
        return super().find_results()


def _make() -> SettingsApp:
    around = find_django(Path.cwd())
    named = os.environ.get("DJANGO_SETTINGS_MODULE") or (around.settings if around is not None else None)
    if not named:
        raise UsageError(
            "cannot find the settings of a Django project",
            why=f"DJANGO_SETTINGS_MODULE is not set, and no manage.py in {Path.cwd()} or above names them",
            hint="go to the folder of manage.py, or set DJANGO_SETTINGS_MODULE",
        )
    os.environ["DJANGO_SETTINGS_MODULE"] = named
    made = SettingsApp(named.partition(".")[0])
    made.config_from_object("django.conf:settings", namespace="CELERY")
    made.autodiscover_tasks()
    made.home = home_of_settings()
    return made


app = _make()
