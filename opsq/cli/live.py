"""One line on stderr that says how far something is, while somebody looks; nothing in a pipe."""

from __future__ import annotations

import shutil
import sys
import time

_EVERY_S = 0.1


class Progress:
    """A line that is written over. Cheap to call often."""

    def __init__(self, wanted: bool) -> None:
        self._on = wanted and sys.stderr.isatty()
        self._last = 0.0
        self._shown = False

    def show(self, text: str, at_once: bool = False) -> None:
        """Write the line anew, ten times a second at most."""
        now = time.monotonic()
        if self._on and (at_once or now - self._last >= _EVERY_S):
            self._last, self._shown = now, True
            width = shutil.get_terminal_size((80, 24)).columns
            sys.stderr.write(f"\r\x1b[K{text[: width - 1]}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False
