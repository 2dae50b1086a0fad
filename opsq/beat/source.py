"""Where a beat's entries come from: the app's settings, or a database in which they are edited while the beat ticks.

What Redis keeps of an entry (its record) is the journal of both: a run is sent and recorded in one step, and only then
noted where the entry comes from. What could not be noted, because this process or the database was gone, is found in
the record, as `unsaved`, by whoever reads the entries next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from opsq.beat.definitions import Definitions
from opsq.beat.entry import Entry
from opsq.beat.stores import Record

#: The source of entries that are kept in a database.
DATABASE = "database"
#: Key of a record: "ran" or "done" (it ran for the only time), until that is noted where the entry comes from.
UNSAVED = "unsaved"


@dataclass(frozen=True, slots=True)
class Found:
    """The entries of a source. `since`: last due times that Redis need not know (Unix ms); `told`: parts of records."""

    entries: Mapping[str, Entry]
    since: Mapping[str, int] = field(default_factory=dict)
    told: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Source(Protocol):
    """Where entries come from. No method raises because the database is away."""

    #: How often it wants to be asked whether anything has changed (seconds).
    pause_s: float

    #: For people: where the entries are; '' when the program itself defines them.
    place: str

    def has_changed(self) -> bool:
        """Whether to read again."""

    def read(self, records: Mapping[str, Record]) -> Found | None:
        """All entries, given what Redis keeps of each; None when they cannot be read now: those known stay."""

    def note(self, name: str, record: Record) -> bool:
        """Note the run that the record tells of; False when that must be done later."""


class Code:
    """What the app's settings and modules define, which never changes."""

    pause_s = math.inf

    place = ""

    def __init__(self, own: Definitions) -> None:
        self._found = Found(own.entries)

    def has_changed(self) -> bool:
        """Never."""
        return False

    def read(self, records: Mapping[str, Record]) -> Found:  # noqa: ARG002
        """All entries."""
        return self._found

    def note(self, name: str, record: Record) -> bool:  # noqa: ARG002
        """Nothing is to be noted."""
        return True
