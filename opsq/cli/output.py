"""How data leaves a command: one table, three ways out (terminal, plain, JSON). Data on stdout, talk on stderr.

In a terminal a table fits its width: long texts are cut a little, then columns that are only nice to have go, then
texts are cut more. In a pipe nothing is ever cut.
"""

from __future__ import annotations

import json as jsonlib
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from opsq.utils.time import humanize_duration

Kind = Literal["text", "number", "seconds", "time", "yes"]

#: States and the like, in colours; anything else has none.
STYLES: Mapping[str, str] = {
    **dict.fromkeys(("SUCCESS", "RUNNING", "ready"), "green"),
    **dict.fromkeys(("FAILURE", "FATAL", "REVOKED"), "red"),
    **dict.fromkeys(("RETRY", "STARTED", "STARTING", "STOPPING", "BACKOFF", "PROGRESS", "paused"), "yellow"),
}
GAP = 2
#: How far texts are cut: at first, when columns have gone, and when nothing else helps.
COMFORTABLE, SHORTEST, LAST_RESORT = 24, 12, 8
_WHOLE_WORDS: Mapping[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: the key in the rows' data, its heading, and what becomes of it where room is short."""

    key: str
    title: str
    kind: Kind = "text"
    #: Which end of a text is cut; None: never cut.
    cut: Literal["start", "end"] | None = None
    #: Left out where the table is too wide otherwise (of several the last one first), or where it says nothing.
    extra: bool = False
    #: Counts of what is seldom there: left out where all of them are 0.
    rare: bool = False

    @property
    def right(self) -> bool:
        """Numbers stand at the right."""
        return self.kind in ("number", "seconds")


@dataclass(frozen=True, slots=True)
class Output:
    """The ways out that the command line asks for."""

    json: bool = False
    plain: bool = False
    color: bool = True
    quiet: bool = False

    @property
    def rich(self) -> bool:
        """True for a terminal that may be painted."""
        blocked = self.json or self.plain or not self.color or os.environ.get("NO_COLOR")
        return not blocked and self.terminal and os.environ.get("TERM") != "dumb"

    @property
    def terminal(self) -> bool:
        """Whether somebody looks at stdout."""
        return sys.stdout.isatty()

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return shutil.get_terminal_size((80, 24)).columns

    def say(self, text: str) -> None:
        """Talk: on stderr, not with --quiet."""
        if not self.quiet:
            print(text, file=sys.stderr)

    def line(self, text: str) -> None:
        """A line of data."""
        print(text)

    def sentence(self, text: str, before: str = "") -> None:
        """Words behind `before`: in a terminal a line ends between two words, and those that follow stand below."""
        if self.terminal and not self.plain:
            import textwrap

            blanks = " " * text_width(before)
            lines = textwrap.wrap(text, self.width, initial_indent=before, subsequent_indent=blanks, **_WHOLE_WORDS)
            self.line("\n".join(lines) or before)
        else:
            self.line(f"{before}{text}")

    def steps(self, text: str, first: str, others: str) -> None:
        """What is to be done one after the other (`a, then b`), a line each behind `first` and `others`."""
        for number, step in enumerate(text.split(", then ") if text else ()):
            self.sentence(step, others if number else first)

    def block(self, text: str) -> None:
        """Lines of data as they are, but for control characters."""
        for line in text.rstrip().splitlines():
            self.line(harmless(line))

    def document(self, value: Any) -> None:
        """Data as JSON."""
        print(jsonlib.dumps(value, indent=2 if self.terminal else None, default=str))

    def table(
        self,
        name: str,
        columns: Sequence[Column],
        rows: Sequence[Mapping[str, Any]],
        *,
        total: int | None = None,
        empty: str = "",
        also: Mapping[str, Any] | None = None,
    ) -> None:
        """A table; as JSON `{name: rows, **also}`. With a larger `total`, "n of m" is said."""
        if self.json:
            self.document({name: list(rows), **(also or {})})
        elif rows:
            self._draw(columns, [[cell(row.get(column.key), column) for column in columns] for row in rows])
        elif empty:
            self.say(empty)
        if total is not None and total > len(rows):
            self.say(f"{len(rows)} of {total}; --limit 0 shows all")

    def facts(self, pairs: Iterable[tuple[str, Any]]) -> None:
        """Names and values of one thing, a line each; for people, JSON has `document`."""
        known = [(name, shown(value)) for name, value in pairs]
        widest = max((text_width(name) for name, _ in known), default=0)
        for name, value in known:
            self.line(f"{padded(name, widest, right=False)}{' ' * GAP}{value}".rstrip())

    def _draw(self, columns: Sequence[Column], cells: list[list[str]]) -> None:
        kept = list(range(len(columns)))
        widths = [
            max(text_width(column.title), *(text_width(row[n]) for row in cells)) for n, column in enumerate(columns)
        ]
        if self.terminal and not self.plain:
            silent = [n for n in kept if _says_nothing(columns[n], [row[n] for row in cells])]
            kept = fit(columns, widths, self.width, silent)
        columns = [columns[n] for n in kept]
        widths = [widths[n] for n in kept]
        cells = [[shortened(row[n], widths[at], columns[at].cut) for at, n in enumerate(kept)] for row in cells]
        if self.rich:
            _paint(columns, widths, cells, self.width)
            return
        for row in ([column.title for column in columns], *cells):
            words = [
                padded(text, width, column.right) for text, width, column in zip(row, widths, columns, strict=True)
            ]
            print((" " * GAP).join(words).rstrip())


def _says_nothing(column: Column, cells: Sequence[str]) -> bool:
    if column.rare:
        return all(text in ("", "-", "0") for text in cells)
    return (column.extra or column.kind == "yes") and all(text in ("", "-") for text in cells)


def fit(columns: Sequence[Column], widths: list[int], room: int, silent: Sequence[int] = ()) -> list[int]:
    """Which columns are shown, never the silent ones; changes `widths` of those that are cut."""
    kept = [n for n in range(len(columns)) if n not in silent]

    def excess() -> int:
        return sum(widths[n] for n in kept) + GAP * (len(kept) - 1) - room

    def cut_down_to(shortest: int) -> None:
        while excess() > 0:
            widest = max((n for n in kept if columns[n].cut), key=lambda n: widths[n], default=None)
            if widest is None or widths[widest] <= shortest:
                return
            widths[widest] -= 1

    cut_down_to(COMFORTABLE)
    for n in reversed(kept.copy()):
        if excess() > 0 and columns[n].extra:
            kept.remove(n)
    cut_down_to(SHORTEST)
    cut_down_to(LAST_RESORT)
    return kept


def _paint(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[Sequence[str]], room: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        side: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(column.title, justify=side, width=width, no_wrap=True)
    for row in cells:
        table.add_row(*(Text(text, style=STYLES.get(text, "")) for text in row))
    Console(highlight=False, width=max(room, sum(widths) + GAP * len(widths))).print(table)


def cell(value: Any, column: Column) -> str:
    """A value as it stands in a table."""
    if value is None:
        return "-"
    if column.kind == "seconds":
        return humanize_duration(value)
    if column.kind == "time":
        return local_time(value)
    if column.kind == "yes":
        return column.title if value else ""
    if isinstance(value, list | tuple):
        return harmless(", ".join(str(item) for item in value))
    return shown(value)


def counted(count: int, one: str, many: str = "") -> str:
    """A number of things in words: `1 message`, `2,000 messages`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def size(count: float) -> str:
    """Bytes for people."""
    if count < 1:
        return "-"
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return f"{count:.0f} B"


def local_time(unix_s: float) -> str:
    """A point in time for people."""
    return datetime.fromtimestamp(unix_s).strftime("%Y-%m-%d %H:%M:%S")


def shown(value: Any) -> str:
    """A value of any kind for people."""
    if value is None:
        return "-"
    return harmless(value if isinstance(value, str) else jsonlib.dumps(value, ensure_ascii=False, default=str))


def harmless(text: str) -> str:
    """Text of others, fit for a terminal: control characters stand as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def text_width(text: str) -> int:
    """How many columns a text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


def padded(text: str, width: int, right: bool) -> str:
    """The text with blanks up to a width."""
    blanks = " " * (width - text_width(text))
    return blanks + text if right else text + blanks


def shortened(text: str, width: int, end: str | None) -> str:
    """The text, cut at one end if it is too long."""
    if text_width(text) <= width or end is None:
        return text
    while text and text_width(text) > width - 1:
        text = text[:-1] if end == "end" else text[1:]
    return f"{text}…" if end == "end" else f"…{text}"
