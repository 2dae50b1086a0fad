"""The app's own source files, watched in development (`--reload`): once a second by size and time of last change.

Whole folders are looked at, so that a file that is imported for the first time, or mended, is seen too.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable
from pathlib import Path

#: Between two looks (seconds).
LOOK_S = 1.0
_PYTHONS = ("stdlib", "platstdlib", "purelib", "platlib")
_OWN = str(Path(__file__).parents[1])


def source_folders() -> list[str]:
    """The folders of all modules that this process has imported, but for those of Python, of packages, and of opsq."""
    paths = sysconfig.get_paths()
    others = tuple(each + os.sep for each in {_OWN, *(paths[name] for name in _PYTHONS)})
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    found = {os.path.dirname(os.path.abspath(file)) for file in files if file}
    return sorted(
        folder
        for folder in found
        if not (folder + os.sep).startswith(others) and not {"site-packages", "dist-packages"} & {*folder.split(os.sep)}
    )


class SourceWatch:
    """Looks at folders, and says which files have changed."""

    def __init__(self, folders: Iterable[str], on_change: Callable[[list[str]], None]) -> None:
        """Without folders nothing is looked at."""
        self._on_change = on_change
        self._next_at = time.monotonic() + LOOK_S
        self._folders: list[str] = []
        self._told: dict[str, tuple[int, int]] = {}
        self._changing: dict[str, tuple[int, int]] | None = None
        self.take(folders)

    def take(self, folders: Iterable[str]) -> None:
        """Look at these from now on; what has changed meanwhile in those that were watched is still told."""
        self._folders, self._changing = list(folders), None
        self._told = {path: self._told.get(path, found) for path, found in _look(self._folders).items()}

    def look(self) -> float | None:
        """Look when it is time to; seconds until the next look, None = never."""
        if not self._folders:
            return None
        now = time.monotonic()
        if now >= self._next_at:
            self._next_at = now + LOOK_S
            self._compare(_look(self._folders))
        return self._next_at - now

    def _compare(self, found: dict[str, tuple[int, int]]) -> None:
        """A change is told when nothing has changed any more since the last look: many files may be written at once."""
        if found == self._told:
            self._changing = None
        elif found == self._changing:
            names = sorted(path for path in found.keys() | self._told.keys() if found.get(path) != self._told.get(path))
            self._told, self._changing = found, None
            self._on_change(names)
        else:
            self._changing = found
            self._next_at = time.monotonic() + LOOK_S / 4


def _look(folders: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Size and time of last change (ns) of each source file."""
    found: dict[str, tuple[int, int]] = {}
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".py"):
                        status = entry.stat()
                        found[entry.path] = status.st_size, status.st_mtime_ns
        except OSError:  # it, or a file in it, has gone meanwhile
            continue
    return found
