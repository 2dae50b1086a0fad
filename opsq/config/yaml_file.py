"""A configuration in YAML: a mapping of names, read without its power to make objects."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from opsq.exceptions import ImproperlyConfigured

SUFFIXES = (".yaml", ".yml")


def is_meant(name: str) -> bool:
    """Whether this is the name of a YAML file (and not of a module)."""
    return name.endswith(SUFFIXES)


def load(path: Path) -> dict[str, Any]:
    """The names and values in the file. Raises ImproperlyConfigured."""
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        raise _unusable(path, "PyYAML is not installed", 'pip install "opsq[yaml]"') from None
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise _unusable(path, (error.strerror or str(error)).lower()) from None
    except yaml.YAMLError as error:
        raise _unusable(path, f"not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise _unusable(path, "it is no mapping of names")
    return content


def _unusable(path: Path, why: str, hint: str = "") -> ImproperlyConfigured:
    return ImproperlyConfigured(f"cannot use {path}", why=why, hint=hint)
