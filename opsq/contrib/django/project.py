"""Which app is this Django project's."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from django.conf import settings

from opsq.app.discovery import named_app
from opsq.exceptions import OpsqError


def celery_package() -> tuple[str, Path] | None:
    """The package around the settings that has a `celery.py`, and the folder from which it is imported."""
    package = str(settings.SETTINGS_MODULE).rpartition(".")[0]
    while package:
        found = find_spec(f"{package}.celery")
        if found is not None and found.origin is not None:
            return package, Path(found.origin).parents[package.count(".") + 1]
        package = package.rpartition(".")[0]
    return None


def name_app() -> None:
    """Name this project's app to this process and those that it starts, unless somebody names one."""
    with suppress(OpsqError):  # what is wrong is told by whoever needs the app
        if named_app() is not None:
            return
    if (found := celery_package()) is None:
        return
    package, folder = found
    os.environ["OPSQ_APP"] = package
    known = os.environ.get("PYTHONPATH", "")
    if str(folder) not in known.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), known)))
