"""GroupResult: the results of a group, under its id."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opsq.result.of_app import app_for, plain
from opsq.result.sets import ResultSet
from opsq.result.single import result_from_tuple


class GroupResult(ResultSet):
    """The results of a group. `parent` is the result before it in a chain."""

    def __init__(self, id: str | None = None, results: Iterable[Any] = (), parent: Any = None, **options: Any) -> None:
        super().__init__(results, **options)
        self.id = id
        self.parent = parent

    def save(self, backend: Any = None) -> None:
        """Store which results they are, so that `restore` finds them by the group's id."""
        (backend or self.backend).save_group(self.id, self)

    def delete(self, backend: Any = None) -> None:
        """Remove what `save` has stored."""
        (backend or self.backend).delete_group(self.id)

    @classmethod
    def restore(cls, id: str, backend: Any = None, app: Any = None) -> GroupResult | None:
        """The results of a group that was saved; None when there is none."""
        app = app_for(cls, app)
        stored = (backend or app.backend).restore_group(id)
        if stored is None:
            return None
        found: GroupResult = result_from_tuple(stored, app)
        return found

    def as_tuple(self) -> tuple[Any, list[Any]]:
        """As it stands in records: id and parent, and the results."""
        before = self.parent.as_tuple() if self.parent is not None else None
        return (self.id, before), [result.as_tuple() for result in self.results]

    def as_list(self) -> list[str]:
        """The ids of its tasks."""
        return self.task_ids()

    @property
    def children(self) -> list[Any]:
        """Its results."""
        return self.results

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return (other.id, other.results, other.parent) == (self.id, self.results, self.parent)
        return other == self.id if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id} [{', '.join(str(result.id) for result in self.results)}]>"

    def __reduce__(self) -> tuple[Any, ...]:
        return plain(type(self)), (self.id, self.results, self.parent)
