"""A schedule that is due once, at a point in time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from opsq.schedules.base import NEVER, BaseSchedule


class clocked(BaseSchedule):
    """Due at `clocked_time` (aware), and never again."""

    def __init__(self, clocked_time: datetime, **kwargs: Any) -> None:
        self.clocked_time = clocked_time.astimezone(UTC)
        super().__init__(**kwargs)

    def next_after(self, moment: datetime) -> datetime:
        """Its time; NEVER from then on."""
        return self.clocked_time if moment < self.clocked_time else NEVER

    def __repr__(self) -> str:
        return f"<clocked: {self.clocked_time}>"

    def __eq__(self, other: object) -> bool:
        return self.clocked_time == other.clocked_time if isinstance(other, clocked) else NotImplemented

    __hash__ = object.__hash__

    def __reduce__(self) -> Any:
        return type(self), (self.clocked_time,)
