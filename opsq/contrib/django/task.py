"""The tasks of a Django project: they can be sent when the transaction of the caller commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ParamSpec, TypeVar

from django.db import transaction

from opsq.app.task import Task
from opsq.utils.ids import new_task_id

P = ParamSpec("P")
R = TypeVar("R")


class DjangoTask(Task[P, R]):
    """A task whose calls may wait for the end of a transaction; outside of one they are sent at once."""

    def delay_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """`delay` when the transaction commits, not at all when it is rolled back; returns the call's id now."""
        return self.apply_async_on_commit(args, kwargs)

    def apply_async_on_commit(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> str:
        """`apply_async` when the transaction commits, not at all when it is rolled back; returns the call's id now.

        Arguments that do not fit raise TypeError now, while the transaction can still be rolled back.
        """
        if self.checks_arguments:
            self.check_arguments(*(args or ()), **(kwargs or {}))
        task_id = task_id or new_task_id()
        transaction.on_commit(partial(self.apply_async, args, kwargs, task_id=task_id, **options))
        return task_id
