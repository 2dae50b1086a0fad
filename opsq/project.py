"""Where a project's own file is (the nearest `opsq.toml`, `opsq.yaml` or `pyproject.toml` with `[tool.opsq]` upwards),
and the app that a Django project names by itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

#: The project's own file, under the first of these names that is there.
NAMES = ("opsq.toml", "opsq.yaml", "opsq.yml")


def find_project_file(start: Path, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file that `OPSQ_CONFIG` names, else the nearest one upwards from `start`; None when there is none."""
    if named := environ.get("OPSQ_CONFIG"):
        return Path(named).absolute()
    start = start.absolute()
    for folder in (start, *start.parents):
        for name in NAMES:
            if (file := folder / name).is_file():
                return file
        if (file := folder / "pyproject.toml").is_file() and _speaks_of_opsq(file):
            return file
    return None


#: How every `manage.py` names the settings.
_SETTINGS = re.compile(r"""DJANGO_SETTINGS_MODULE["'],\s*["']([\w.]+)["']""")


#: The app of a Django project that makes none itself.
SETTINGS_APP = "opsq.contrib.django"


def django_settings(folder: Path) -> str | None:
    """The module of the settings that a Django project's `manage.py` in this folder names."""
    try:
        found = _SETTINGS.search((folder / "manage.py").read_text(errors="replace"))
    except OSError:
        return None
    return found[1] if found else None


def django_app(folder: Path) -> str | None:
    """The app of the Django project whose `manage.py` is in this folder.

    It is the package of the settings, if that has a `celery.py`, else one that is made of the settings alone.
    """
    settings = django_settings(folder)
    if settings is None:
        return None
    package = settings.partition(".")[0]
    if (folder / package / "celery.py").is_file():
        return package
    return SETTINGS_APP if find_spec("django") is not None else None


def _speaks_of_opsq(pyproject: Path) -> bool:
    try:
        text = pyproject.read_bytes()
    except OSError:
        return False
    return any(line.strip().startswith((b"[tool.opsq]", b"[tool.opsq.")) for line in text.splitlines())
