"""Positions in source text as syntax trees give them, and changes of the text at some of them."""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

_END_OF_LINE = re.compile(r"\r\n|\r|\n")


class Edit(NamedTuple):
    """The text from `start` to `end` becomes another one."""

    start: int
    end: int
    text: str


class Places:
    """Where the lines of a source text begin, as Python's own reader counts them."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._starts = [0, *(found.end() for found in _END_OF_LINE.finditer(source))]

    def offset(self, line: int, column: int) -> int:
        """The place of a line (from 1) and a column in bytes of UTF-8, which is what syntax trees hold."""
        start = self._starts[line - 1]
        end = self._starts[line] if line < len(self._starts) else len(self.source)
        return start + len(self.source[start:end].encode()[:column].decode(errors="ignore"))

    def start(self, node: ast.stmt | ast.expr | ast.alias) -> int:
        """Where a node begins."""
        return self.offset(node.lineno, node.col_offset)

    def end(self, node: ast.stmt | ast.expr | ast.alias) -> int:
        """Where it ends."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.offset(node.end_lineno, node.end_col_offset)

    def text(self, node: ast.stmt | ast.expr | ast.alias) -> str:
        """What is written there."""
        return self.source[self.start(node) : self.end(node)]

    def line_text(self, number: int) -> str:
        """A line without its end."""
        start = self._starts[number - 1]
        return _END_OF_LINE.split(self.source[start:], 1)[0]

    def before(self, place: int) -> str:
        """What stands before a place in its line."""
        return _END_OF_LINE.split(self.source[:place])[-1]

    @property
    def newline(self) -> str:
        """How lines end here."""
        found = _END_OF_LINE.search(self.source)
        return found[0] if found else "\n"


def applied(source: str, edits: list[Edit]) -> str:
    """The text with all changes made; they do not overlap."""
    parts, position = [], 0
    for edit in sorted(edits):
        parts += [source[position : edit.start], edit.text]
        position = edit.end
    return "".join([*parts, source[position:]])
