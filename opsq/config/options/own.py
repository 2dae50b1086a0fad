"""opsq's own settings: few, each for a promise that Celery has no word for."""

from __future__ import annotations

from opsq.config.option import WORKS, Option

# fmt: off
OWN_OPTIONS: tuple[Option, ...] = (
    Option("task_max_deliveries", int, 5, "", WORKS,
           "A started message that was given back this often goes to the dead letters; 0 = never"),
    Option("worker_lease", float, 15.0, "", WORKS,
           "Seconds after which others may take over from a worker that gives no sign of life"),
)
# fmt: on
