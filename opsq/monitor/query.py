"""What the address of a list of tasks asks for, checked and bounded: the same words for the page and for JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from urllib.parse import urlencode

from opsq import states
from opsq.exceptions import UsageError
from opsq.monitor.record import STATES
from opsq.monitor.store import Wanted
from opsq.utils.time import parse_duration

PAGE_SIZE = 50
#: Most rows of one answer.
ROWS_LIMIT = 1_000
#: Most characters of one word of an address.
_WORD_LIMIT = 300
_KNOWN = frozenset(STATES.values()) | states.ALL_STATES


@dataclass(frozen=True, slots=True)
class Query:
    """The words of an address, each empty if it is not there. `q`: text anywhere in a task; `since`: a duration."""

    q: str = ""
    name: str = ""
    state: str = ""
    queue: str = ""
    worker: str = ""
    since: str = ""
    before: str = ""

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Query:
        """From an address. Raises UsageError."""
        known = {name: str(values.get(name, "")).strip()[:_WORD_LIMIT] for name in cls.__dataclass_fields__}
        made = cls(**known)
        made.wanted()
        return made

    def wanted(self) -> Wanted:
        """What to look for. Raises UsageError."""
        return Wanted(
            name=self.name,
            states=states_named(self.state),
            queue=self.queue,
            worker=self.worker,
            since=since(self.since),
            grep=self.q,
        )

    def link(self, **changes: str) -> str:
        """The query of an address that asks for the same but for the changes."""
        words = {name: value for name, value in asdict(replace(self, **changes)).items() if value}
        return f"?{urlencode(words)}"


def states_named(text: str) -> frozenset[str]:
    """States by name in any case, with commas between them. Raises UsageError."""
    found = frozenset(word.strip().upper() for word in text.split(",") if word.strip())
    if unknown := sorted(found - _KNOWN):
        raise UsageError(f"there is no state {unknown[0]}", hint=f"use one of {', '.join(sorted(_KNOWN))}")
    return found


def since(text: str) -> float:
    """The point in time (Unix seconds) that lies a duration back; 0 if the text is empty. Raises UsageError."""
    if not text:
        return 0.0
    try:
        return float(int(time.time() - parse_duration(text)))
    except ValueError as error:
        raise UsageError(f"cannot look back {text!r}", why=str(error)) from None


def limit(values: Mapping[str, str], default: int = 100) -> int:
    """How many rows an address asks for, bounded. Raises UsageError."""
    text = values.get("limit", str(default))
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"limit must be a number, not {text[:40]!r}")
    return min(int(text) or ROWS_LIMIT, ROWS_LIMIT)
