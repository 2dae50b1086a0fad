"""Where a project's own file is (the nearest `opsq.toml`, `opsq.yaml` or `pyproject.toml` with `[tool.opsq]` upwards),
and the app that a Django project names by itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

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


class Django(NamedTuple):
    """A Django project: the folder of its `manage.py`, the module of its settings, and its app.

    The app is the package around the settings that has a `celery.py`, else one that is made of the settings alone.
    """

    folder: Path
    settings: str
    app: str


def find_django(start: Path) -> Django | None:
    """The Django project that the nearest `manage.py` upwards from `start` is of."""
    start = start.absolute()
    for folder in (start, *start.parents):
        if (settings := _settings_of(folder)) is not None:
            package = settings.rpartition(".")[0]
            while package and not (folder / package.replace(".", "/") / "celery.py").is_file():
                package = package.rpartition(".")[0]
            return Django(folder, settings, package or SETTINGS_APP) if package or find_spec("django") else None
    return None


def _settings_of(folder: Path) -> str | None:
    try:
        found = _SETTINGS.search((folder / "manage.py").read_text(errors="replace"))
    except OSError:
        return None
    return found[1] if found else None


def _speaks_of_opsq(pyproject: Path) -> bool:
    try:
        text = pyproject.read_bytes()
    except OSError:
        return False
    return any(line.strip().startswith((b"[tool.opsq]", b"[tool.opsq.")) for line in text.splitlines())
