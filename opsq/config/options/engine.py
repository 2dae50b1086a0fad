"""Settings of the engine that Celery has no word for; everywhere where Celery's may stand."""

from __future__ import annotations

from opsq.config.option import WORKS, Option

# fmt: off
ENGINE_OPTIONS: tuple[Option, ...] = (
    Option("task_max_deliveries", int, 5, "", WORKS,
           "A message that was started and lost with its process so often goes to the dead letters; 0 = never"),
    Option("worker_discard_invalid_messages", bool, False, "", WORKS,
           "As Celery: a message of an unknown task, or that cannot be read, is thrown away with a line in the log; "
           "not set: it goes to the dead letters"),
)
# fmt: on
