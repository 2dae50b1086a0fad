"""Tasks that can be asked to stop: they look at times whether somebody has said so. Celery's `contrib.abortable`."""

from __future__ import annotations

from typing import Any

from opsq.app.task import Task
from opsq.result.single import AsyncResult

#: The state of a task that was asked to stop.
ABORTED = "ABORTED"


class AbortableAsyncResult(AsyncResult):
    """The result of a task that can be asked to stop."""

    def is_aborted(self) -> bool:
        """Whether it was asked to stop, and has not ended since."""
        return self.state == ABORTED

    def abort(self) -> None:
        """Ask it to stop: it will see it when it next looks. A task that has succeeded stays so."""
        self.backend.store(self.id, ABORTED, None)


class AbortableTask(Task[..., Any]):
    """The base class of tasks that call `self.is_aborted()` at times, and return if it is true.

    A result backend is needed; the task must not tell another state of its own meanwhile.
    """

    abstract = True

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AbortableAsyncResult:
        """The result of an earlier call, which can be asked to stop."""
        return AbortableAsyncResult(task_id, app=self.app, task_name=self.name, **kwargs)

    def is_aborted(self, **kwargs: Any) -> bool:
        """Whether this run, or the one of `task_id`, was asked to stop."""
        return self.AsyncResult(kwargs.get("task_id", self.request.id)).is_aborted()
