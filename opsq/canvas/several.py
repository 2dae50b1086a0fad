"""What a chain and a group have in common: they are made of other signatures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from opsq import _state
from opsq.canvas.signatures import Signature, maybe_signature


class Several(Signature):
    """A signature whose work are the signatures in its `tasks`."""

    @property
    def tasks(self) -> list[Any]:
        """The signatures that it is made of."""
        found: list[Any] = self["kwargs"]["tasks"]
        return found

    @tasks.setter
    def tasks(self, tasks: Iterable[Any]) -> None:
        self["kwargs"]["tasks"] = list(tasks)

    @property
    def app(self) -> Any:
        """The app that sends it: its own, or that of its first task."""
        if self._app is not None:
            return self._app
        first = self.tasks[0] if self.tasks else None
        return first.app if isinstance(first, Signature) else _state.get_current_app()

    def clone(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Self:
        """A copy, also of what it is made of."""
        made: Self = super().clone(args, kwargs, **options)
        made.tasks = [maybe_signature(task, app=self._app, clone=True) for task in made.tasks]
        return made
