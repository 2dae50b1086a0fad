"""EagerResult: the result of a task that has run here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opsq import states
from opsq.exceptions import TaskRevokedError
from opsq.result.single import AsyncResult

#: An EagerResult has neither app nor backend.
_NO_APP = object()


class EagerResult(AsyncResult):
    """The result of a task that has already run, in this process."""

    def __init__(
        self, id: str, ret_value: Any, state: str, traceback: str | None = None, name: str | None = None
    ) -> None:
        super().__init__(id, task_name=name, app=_NO_APP)
        self._cache = {"task_id": id, "status": state, "result": ret_value, "traceback": traceback, "name": name}

    def ready(self) -> bool:
        """It has ended, whatever its state is called."""
        return True

    def _value(
        self, propagate: bool, callback: Callable[[str, Any], Any] | None, raised: frozenset[str] | None = None
    ) -> Any:
        value = super()._value(propagate, callback, raised)
        return value if self.state in states.READY_STATES else None  # a run that was ignored or rejected has no value

    def forget(self) -> None:
        """Nothing is stored."""

    def revoke(self, *_args: Any, **_kwargs: Any) -> None:
        """It has run already: it becomes the result of a task that was revoked, as in Celery."""
        assert self._cache is not None
        self._cache.update(status=states.REVOKED, result=TaskRevokedError("revoked"), traceback=None)

    def exists(self) -> bool:
        """It is here."""
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        assert self._cache is not None
        return type(self), (self.id, self.result, self.state, self.traceback, self.name)
