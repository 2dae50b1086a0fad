"""Packages of the tests' own Python, lent to another environment of the same version through its PYTHONPATH."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

#: What Celery's signed messages need.
CRYPTOGRAPHY = ("cryptography", "cffi", "_cffi_backend", "pycparser")


def lend(folder: Path, names: tuple[str, ...]) -> None:
    """Put these modules into a folder that is on the other's path; those that are not here are not needed."""
    for name in names:
        if (spec := find_spec(name)) is not None and spec.origin is not None:
            home = Path(spec.origin)
            found = home.parent if home.name == "__init__.py" else home
            (folder / found.name).symlink_to(found)
