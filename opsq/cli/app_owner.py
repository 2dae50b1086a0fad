"""Whose an app is, opsq's or Celery's, by what its module imports."""

from __future__ import annotations

import ast
from importlib.machinery import PathFinder
from pathlib import Path

from opsq.exceptions import OpsqError


def owner(app: str) -> str:
    """Says "opsq" or "celery". The source is read, and the app imported only where that tells neither."""
    found: set[str] = set()
    for source in _sources(app.partition(":")[0]):
        found |= _imports(source)
    if len(found) == 1:
        return found.pop()
    return _owner_when_imported(app)


def _sources(name: str) -> list[Path]:
    """The files of a module, or of the package around an attribute, and `celery.py` of a package; none is imported."""
    path, files = None, list[Path]()
    for part in name.split("."):
        spec = PathFinder.find_spec(part, path)
        if spec is None:
            break
        files = [Path(spec.origin)] if spec.origin and spec.origin.endswith(".py") else []
        path = list(spec.submodule_search_locations or ())
        files += [file for folder in path if (file := Path(folder) / "celery.py").is_file()]
        if not path:
            break
    return files


def _imports(source: Path) -> set[str]:
    """Which of the two a file imports anywhere."""
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names} & {"opsq", "celery"}


def _owner_when_imported(app: str) -> str:
    from opsq.app.discovery import OF_CELERY, find_app  # loads much, and most modules tell

    try:
        find_app(app)
    except OpsqError as error:  # any other mistake is told by opsq's own command
        return "celery" if error.why == OF_CELERY else "opsq"
    return "opsq"
