"""Loggers for tasks (Celery's public path `utils.log`)."""

from __future__ import annotations

import logging

#: Children of `celery`, so that existing logging configuration keeps receiving.
celery_logger = logging.getLogger("celery")
logger = logging.getLogger("opsq")
logger.parent = celery_logger
task_logger = logging.getLogger("celery.task")


def get_logger(name: str) -> logging.Logger:
    """A logger below ours, unless its name already is."""
    return _below(logger, name)


def get_task_logger(name: str) -> logging.Logger:
    """A logger for a module with tasks; its lines carry the name and the id of the task that runs."""
    if name in ("celery", "celery.task", "opsq"):
        raise RuntimeError(f"{name!r} is the name of a logger of opsq's own")
    return _below(task_logger, name)


def _below(parent: logging.Logger, name: str) -> logging.Logger:
    found = logging.getLogger(name)
    if found is not parent and found.parent in (logging.root, None):
        found.parent = parent
    return found
