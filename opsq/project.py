"""Where a project's own file is: the nearest `opsq.toml` upwards, or `pyproject.toml` with `[tool.opsq]`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def find_project_file(start: Path, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file that `OPSQ_CONFIG` names, else the nearest one upwards from `start`; None when there is none."""
    if named := environ.get("OPSQ_CONFIG"):
        return Path(named).absolute()
    start = start.absolute()
    for folder in (start, *start.parents):
        if (file := folder / "opsq.toml").is_file():
            return file
        if (file := folder / "pyproject.toml").is_file() and _speaks_of_opsq(file):
            return file
    return None


def _speaks_of_opsq(pyproject: Path) -> bool:
    try:
        text = pyproject.read_bytes()
    except OSError:
        return False
    return any(line.strip().startswith((b"[tool.opsq]", b"[tool.opsq.")) for line in text.splitlines())
