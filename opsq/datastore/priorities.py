"""The lists of a queue: one for each step of priorities, as kombu has them."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from opsq.datastore.keys import PRIORITY_SEPARATOR
from opsq.exceptions import ImproperlyConfigured


@dataclass(frozen=True, slots=True)
class Priorities:
    """The lists of each queue: one for each step of priorities, 0 is served first (kombu's transport options)."""

    steps: tuple[int, ...] = (0, 3, 6, 9)
    separator: str = PRIORITY_SEPARATOR

    @classmethod
    def of(cls, transport_options: Mapping[str, Any] | None) -> Priorities:
        """As `broker_transport_options` say: `priority_steps` and `sep`. Raises ImproperlyConfigured."""
        told = transport_options or {}
        steps, separator = told.get("priority_steps") or cls().steps, told.get("sep") or cls().separator
        if not (isinstance(separator, str) and all(type(step) is int and 0 <= step <= 9 for step in steps)):
            raise ImproperlyConfigured(
                f"cannot use priority_steps = {steps!r} with sep = {separator!r} in broker_transport_options",
                why="steps are numbers from 0 to 9, the separator is a text",
            )
        return cls(tuple(sorted(set(steps))), separator)

    def to_options(self) -> dict[str, Any]:
        """What `of` reads, as JSON can carry it."""
        told = asdict(self)
        return {"priority_steps": list(told["steps"]), "sep": told["separator"]}

    def step(self, priority: int) -> int:
        """The step that a priority belongs to: the largest one not above it; as kombu does it, clamped to 0..9."""
        return self.steps[bisect(self.steps, min(max(priority, 0), 9)) - 1]

    def at_step(self, queue: str, step: int) -> str:
        """The list that holds the messages of one step of a queue."""
        return f"{queue}{self.separator}{step}" if step else queue

    def list_of(self, queue: str, priority: int) -> str:
        """The list that holds the messages of a queue that have a priority."""
        return self.at_step(queue, self.step(priority))

    def lists(self, queue: str) -> list[str]:
        """The lists of a queue, first served first."""
        return [self.at_step(queue, step) for step in self.steps]

    def suffix(self, priority: int) -> bytes:
        """What members of a delayed set begin with: the step of their list, a bar."""
        step = self.step(priority)
        return b"%d|" % step if step else b"|"


#: As they are unless the settings say otherwise.
PRIORITIES = Priorities()
