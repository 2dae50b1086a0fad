"""Celery's word for the import of an app's tasks: `app.loader.import_default_modules()`."""

from __future__ import annotations

from collections.abc import Callable


class Loader:
    """What programs ask of Celery's loader: tests, and pages that list all tasks."""

    def __init__(self, import_tasks: Callable[[], None]) -> None:
        self._import_tasks = import_tasks

    def import_default_modules(self) -> None:
        """Import every module that defines tasks, as a worker does when it starts. Raises UsageError."""
        self._import_tasks()
