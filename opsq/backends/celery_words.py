"""Celery's words for what is stored: programs read and write single states by `app.backend`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any


class CelerysWords:
    """What a place for results is asked and told by programs that were written for Celery."""

    @abstractmethod
    def store(self, task_id: str, state: str, result: Any, traceback: str | None = None, request: Any = None) -> None:
        """Store a state and tell those who wait."""

    @abstractmethod
    def get_meta(self, task_id: str) -> dict[str, Any]:
        """What is known of a task."""

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **_more: Any,
    ) -> Any:
        """Store a state, also one of the program's own; a stored success stays. Returns the result."""
        self.store(task_id, state, result, traceback, request)
        return result

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:  # noqa: ARG002 (Celery's signature)
        """What is known of a task; PENDING when nothing is."""
        return self.get_meta(task_id)

    def get_state(self, task_id: str) -> Any:
        """The state of a task."""
        return self.get_meta(task_id)["status"]

    get_status = get_state

    def get_result(self, task_id: str) -> Any:
        """What a task returned, or its error."""
        return self.get_meta(task_id).get("result")

    def get_traceback(self, task_id: str) -> Any:
        """The traceback of a task that failed."""
        return self.get_meta(task_id).get("traceback")
