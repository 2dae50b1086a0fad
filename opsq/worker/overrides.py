"""Time limits that were set while the worker runs (remote command `time_limit`): for all later runs, until it restarts.

They lie in a file beside the mapped one; a word of the page tells the children that it has changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opsq.execution.runner import Runner
from opsq.worker import slots
from opsq.worker.slots import Slots


def path_of(table: Slots) -> Path:
    """The file of a worker."""
    return table.path.with_suffix(".limits")


def write(table: Slots, task: str, soft_s: float | None, hard_s: float | None) -> None:
    """Set the limits of a task (seconds, None = none). The caller announces that the page has changed."""
    limits = {**_read(table), task: (soft_s, hard_s)}
    path = path_of(table)
    fresh = path.with_suffix(".fresh")
    fresh.write_text(json.dumps(limits))
    os.replace(fresh, path)
    table.words[slots.OVERRIDES] += 1


def apply(table: Slots, runner: Runner) -> None:
    """In a child: the limits that are written hold from now on."""
    for name, (soft_s, hard_s) in _read(table).items():
        if name in runner.tasks:
            set_limits(runner.tasks[name], soft_s, hard_s)
            runner.plans.pop(name, None)


def set_limits(task: Any, soft_s: float | None, hard_s: float | None) -> None:
    """Set the limits on a task object."""
    task.soft_time_limit, task.time_limit = soft_s, hard_s


def _read(table: Slots) -> Mapping[str, tuple[float | None, float | None]]:
    try:
        found: dict[str, tuple[float | None, float | None]] = json.loads(path_of(table).read_text())
    except FileNotFoundError:
        return {}
    return found
