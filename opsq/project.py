"""Where a project's own file is (the nearest `opsq.toml`, `opsq.yaml` or `pyproject.toml` with `[tool.opsq]` upwards),
and the app that a Django project names by itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
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


def django_app(folder: Path) -> str | None:
    """The package that a Django project's `manage.py` in this folder names, if it has a `celery.py`."""
    try:
        found = _SETTINGS.search((folder / "manage.py").read_text(errors="replace"))
    except OSError:
        return None
    package = found[1].partition(".")[0] if found else ""
    return package if package and (folder / package / "celery.py").is_file() else None


def _speaks_of_opsq(pyproject: Path) -> bool:
    try:
        text = pyproject.read_bytes()
    except OSError:
        return False
    return any(line.strip().startswith((b"[tool.opsq]", b"[tool.opsq.")) for line in text.splitlines())
