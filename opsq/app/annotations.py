"""`task_annotations`: attributes of tasks that the settings change, by name or for all (`*`)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def annotate(task: Any, annotations: Any) -> None:
    """Apply what the setting says about a task; `@method` wraps a method."""
    if not annotations:
        return
    for entry in annotations if isinstance(annotations, list | tuple) else (annotations,):
        for changes in _changes(entry, task):
            for name, value in changes.items():
                if name.startswith("@"):
                    setattr(task, name[1:], value(getattr(task, name[1:])))
                else:
                    setattr(task, name, value)


def _changes(entry: Any, task: Any) -> list[Mapping[str, Any]]:
    if isinstance(entry, str):
        module, _, name = entry.rpartition(".")
        entry = getattr(importlib.import_module(module), name)()
    if isinstance(entry, Mapping):
        return [entry[key] for key in ("*", task.name) if key in entry]
    methods = (getattr(entry, "annotate_any", None), getattr(entry, "annotate", None))
    found = [methods[0]() if methods[0] else None, methods[1](task) if methods[1] else None]
    return [changes for changes in found if changes]
