"""What a piece of code publishes, held together instead of sent: for one pipeline, or for a turn.

So a task's own `apply_async`, signals and routes work as in any program.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


class Gathered:
    """Messages (`Outgoing`) in order, and what their workflows need among the results: key, seconds to live, bytes.

    `records` is None where these are stored at once.
    """

    __slots__ = ("messages", "records")

    def __init__(self, records: list[tuple[str, int, bytes]] | None) -> None:
        self.messages: list[Any] = []
        self.records = records

    @property
    def follows(self) -> bool:
        """Whether it follows a task, and goes out with the turn that ends it: nothing may be refused then, or wait."""
        return self.records is not None


_gathered: ContextVar[Gathered | None] = ContextVar("opsq_gathered", default=None)

#: What gathers the messages of this thread, or None.
current = _gathered.get


@contextmanager
def gather(records: bool = False) -> Iterator[Gathered]:
    """Hold back what is published inside; with `records` also what is to be stored for it."""
    outer = _gathered.get()
    held = Gathered([] if records else outer.records if outer is not None else None)
    token = _gathered.set(held)
    try:
        yield held
    finally:
        _gathered.reset(token)
