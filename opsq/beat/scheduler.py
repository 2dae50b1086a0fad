"""A program's own source of entries (`beat_scheduler = "module:Class"`, `-S`), in Celery's words.

When entries are due, who of many beats sends them, and what was served last stays the beat's business.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from typing import Any

from opsq.beat import definitions
from opsq.beat.source import Found
from opsq.beat.stores import Record
from opsq.exceptions import UsageError

logger = logging.getLogger("celery.beat")


class Scheduler:
    """The entries of `beat_schedule` and `add_periodic_task`; to be subclassed for others."""

    #: How often `schedule_changed` is asked (seconds).
    max_interval: float = 5.0

    def __init__(self, app: Any) -> None:
        self.app = app

    def setup_schedule(self) -> None:
        """Called once, before the schedule is read for the first time."""

    @property
    def schedule(self) -> Mapping[str, Any]:
        """The entries by name, each as it would stand in `beat_schedule`."""
        return {**(self.app.conf.beat_schedule or {}), **self.app.periodic_tasks}

    def schedule_changed(self) -> bool:
        """Whether the schedule is to be read again."""
        return False


class FromScheduler:
    """A scheduler as the source of a beat's entries: while it fails the entries stay as they were."""

    place = ""

    def __init__(self, app: Any, scheduler: Scheduler) -> None:
        self._app, self._scheduler = app, scheduler
        self.pause_s = scheduler.max_interval
        scheduler.setup_schedule()

    def has_changed(self) -> bool:
        """What the scheduler says."""
        try:
            return bool(self._scheduler.schedule_changed())
        except Exception:
            self._say_that_it_fails()
            return False

    def read(self, records: Mapping[str, Record]) -> Found | None:  # noqa: ARG002
        """All entries that can be understood; the others are named."""
        try:
            found = definitions.read(self._app, self._scheduler.schedule, "app")
        except Exception:
            self._say_that_it_fails()
            return None
        for problem in found.problems:
            logger.error("%s", problem)
        return Found(found.entries)

    def note(self, name: str, record: Record) -> bool:  # noqa: ARG002
        """Nothing is to be noted."""
        return True

    def _say_that_it_fails(self) -> None:
        kind = type(self._scheduler).__name__
        logger.exception("beat: the scheduler %s failed; its schedule stays as it was", kind)


def scheduler_class(name: str) -> type[Scheduler]:
    """The class of this name, `module:Class` or `module.Class`. Raises UsageError."""
    module, _, kind = name.replace(":", ".").rpartition(".")
    try:
        found = getattr(importlib.import_module(module), kind)
    except (ImportError, ValueError, AttributeError) as error:
        raise UsageError(f"cannot use the scheduler {name!r}", why=str(error), hint="write -S module:Class") from error
    if not (isinstance(found, type) and issubclass(found, Scheduler)):
        raise UsageError(
            f"cannot use the scheduler {name!r}",
            why="it is no subclass of opsq.beat.scheduler.Scheduler",
            hint="leave -S (beat_scheduler) out, or see docs/extending.md; `opsq schedule add` adds entries too",
        )
    return found
