"""What came of one run of a task, as data: its state, its value or error, its stored record, and what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from opsq import states
from opsq.exceptions import Ignore


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A message that follows from a run, not yet sent; `due_ms` (Unix ms) when it is for later.

    With a `channel` it goes to all who listen there, into no queue.
    """

    queue: str
    raw: bytes
    priority: int = 0
    due_ms: int | None = None
    channel: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """Something to store among the results, of another task or of a workflow, for `ttl_s` seconds (0 = for ever)."""

    key: str
    ttl_s: int
    data: bytes


class Replaced(Ignore):
    """A task is replaced by others, under its id: they follow it, and it says nothing itself."""

    def __init__(self, follows: Sequence[FollowUp | Record]) -> None:
        super().__init__("Replaced by new task")
        self.follows = follows


@dataclass(frozen=True, slots=True)
class ChordPart:
    """A part of a chord that has ended: the task and its place, what is kept of it, and the body's signature (None: it
    is not known here).
    """

    group_id: str
    task_id: str
    index: int | None
    member: bytes
    body: Mapping[str, Any] | None
    root_id: str | None


class Outcome(msgspec.Struct):
    """The end of one run.

    `record` is the result as it is stored, None when none is to be. `dead` is the reason if it goes to the dead
    letters; `requeue` puts the message back. `runtime_s` is the time the task's function took. `expected`: the task had
    said that this error may come (`throws`).
    """

    state: str
    value: Any = None
    traceback: str | None = None
    record: bytes | None = None
    follows: Sequence[FollowUp | Record | ChordPart] = ()
    dead: str | None = None
    requeue: bool = False
    runtime_s: float = 0.0
    expected: bool = False

    @property
    def failed(self) -> bool:
        """True for an error that was not a retry."""
        return self.state == states.FAILURE


class ExceptionInfo:
    """An error with its traceback as text, as handlers and signals get it (`einfo`)."""

    def __init__(self, error: BaseException, traceback: str) -> None:
        self.type, self.exception, self.traceback = type(error), error, traceback
        self.tb = error.__traceback__
        self.internal = False

    def __str__(self) -> str:
        return self.traceback

    def __repr__(self) -> str:
        return f"<ExceptionInfo: {self.exception!r}>"
