"""Which app is this Django project's."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings

from opsq import _state
from opsq._state import current_app_or_none
from opsq.app.discovery import find_app, named_app
from opsq.exceptions import OpsqError
from opsq.project import SETTINGS_APP


def celery_package() -> tuple[str, Path] | None:
    """The package around the settings that has a `celery.py`, and the folder from which it is imported."""
    package = str(settings.SETTINGS_MODULE).rpartition(".")[0]
    while package:
        found = find_spec(f"{package}.celery")
        if found is not None and found.origin is not None:
            return package, Path(found.origin).parents[package.count(".") + 1]
        package = package.rpartition(".")[0]
    return None


def project_app() -> Any:
    """This project's app: the current one, that of its `celery.py`, or one made of its settings. Raises OpsqError."""
    app = current_app_or_none()
    if app is None:
        found = celery_package()
        app = find_app(found[0] if found else SETTINGS_APP)
    return app


def use_settings_app() -> None:
    """Where the project makes no app, calls of shared tasks reach the one that is made of its settings."""
    if celery_package() is None:
        _state.default_app_factory = lambda: find_app(SETTINGS_APP)


def name_app() -> Path:
    """Name this project's app to this process and those that it starts, unless somebody names one; its folder."""
    package, folder = celery_package() or (SETTINGS_APP, home_of_settings())
    with suppress(OpsqError):  # what is wrong is told by whoever needs the app
        named = named_app()
        if named is not None and named[0] != SETTINGS_APP:
            return folder
    os.environ["OPSQ_APP"] = package
    known = os.environ.get("PYTHONPATH", "")
    if str(folder) not in known.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), known)))
    return folder


def home_of_settings() -> Path:
    """The folder from which the package of the settings is imported."""
    package = str(settings.SETTINGS_MODULE).partition(".")[0]
    found = find_spec(package)
    if found is None or not (places := list(found.submodule_search_locations or ())):
        return Path.cwd() if found is None or found.origin is None else Path(found.origin).parent
    return Path(places[0]).parent


def current_app() -> Any:
    """The project's app, with its tasks."""
    app = _state.get_current_app()
    app.import_tasks()
    app.finalize()
    return app
