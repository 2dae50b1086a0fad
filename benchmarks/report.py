"""What a benchmark has found: a table for people, JSON for programs, and where it was measured."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


def machine() -> str:
    """Where this is measured, in a line."""
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def load() -> float:
    """How many processes want a core, on average of the last minute."""
    return round(os.getloadavg()[0], 1)


@dataclass
class Report:
    """One benchmark's rows; `settings` is the line that says how they were measured."""

    name: str
    settings: str
    redis: str
    as_json: bool
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    load_before: float = field(default_factory=load)

    def add(self, **row: Any) -> None:
        """A row has been measured; who waits at a terminal sees that it goes on."""
        self.rows.append(row)
        if sys.stderr.isatty():
            print(*row.values(), file=sys.stderr)

    def print(self) -> None:
        """All of it, on standard output."""
        where = f"{machine()}, Redis {self.redis}; load {self.load_before} before, {load()} after"
        if self.as_json:
            told = {"benchmark": self.name, "time": time.time(), "machine": where, "settings": self.settings}
            print(json.dumps({**told, "rows": self.rows, "notes": self.notes}, indent=1))
            return
        print(f"{self.name}: {where}\n{self.settings}\n")
        print(table(self.rows))
        for note in self.notes:
            print(f"\n{note}")


def table(rows: Sequence[Row]) -> str:
    """Rows as aligned text; numbers to the right."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[name.replace("_", " ") for name in names], *([_text(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    right = [any(isinstance(row.get(name), int | float) for row in rows) for name in names]
    return "\n".join("  ".join(_aligned(line, widths, right)).rstrip() for line in cells)


def _aligned(line: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> Iterator[str]:
    for text, width, to_the_right in zip(line, widths, right, strict=True):
        yield text.rjust(width) if to_the_right else text.ljust(width)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)


def median(values: Sequence[float]) -> float:
    """The one in the middle."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


def difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """What has grown, by how much."""
    return {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}
