"""Read a program's log: its last lines, and on from there. Rotated files with growing numbers are part of it.

A file may end inside a line, which then goes on in the next one.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

_CHUNK = 1 << 16


def files_of(log: Path) -> list[Path]:
    """The log's files, the oldest first, the one that is written to last; a link leads to where they lie."""
    log = log.resolve() if log.is_symlink() else log
    numbered = sorted((number, path) for path in log.parent.glob(f"{log.name}.*") if (number := _number(path, log)))
    return [path for _number, path in numbered] + ([log] if log.exists() else [])


def next_number(log: Path) -> Path:
    """Where the log goes when it is rotated next."""
    numbers = [_number(path, log) for path in files_of(log)]
    return log.with_name(f"{log.name}.{max(numbers, default=0) + 1:06d}")


def _number(path: Path, log: Path) -> int:
    end = path.name[len(log.name) + 1 :]
    return int(end) if end.isdigit() else 0


class Reader:
    """Reads a log from some place to its end, again and again, through rotations. `partial`: a line not yet ended."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._file = -1
        self.partial = b""

    def last_lines(self, count: int) -> list[bytes]:
        """The last lines that are there now; reading goes on behind them."""
        data, files = b"", files_of(self._log)
        for path in reversed(files):
            data = self._tail(path, count - data.count(b"\n") + 1, last=path == files[-1]) + data
            if data.count(b"\n") > count:
                break
        lines = data.split(b"\n")
        self.partial = lines.pop()
        return lines[-count:] if count else []

    def begin_at(self, place: int) -> None:
        """Skip the first bytes of the file that is written to now."""
        if self._open(self._log):
            os.lseek(self._file, place, os.SEEK_SET)

    def more(self) -> list[bytes]:
        """The complete lines that were added since; of a log that was not there before, all."""
        data = bytearray(self.partial)
        while True:
            if self._file < 0 and not any(self._open(path) for path in files_of(self._log)):
                break
            read = os.read(self._file, _CHUNK)
            data += read
            if not read and not self._go_on():
                break
        *lines, self.partial = bytes(data).split(b"\n")
        return lines

    def close(self) -> None:
        """Read no more."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _tail(self, path: Path, newlines: int, last: bool) -> bytes:
        """The end of a file, from back to front until it holds so many line ends; the last file stays open."""
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return b""
        place = end = os.lseek(fd, 0, os.SEEK_END)
        data = b""
        while place > 0 and data.count(b"\n") < newlines:
            place = max(0, place - _CHUNK)
            data = os.pread(fd, min(_CHUNK, end - place - len(data)), place) + data
        if last:
            os.lseek(fd, end, os.SEEK_SET)
            self._file = fd
        else:
            os.close(fd)
        return data

    def _open(self, path: Path) -> bool:
        try:
            self._file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        return True

    def _go_on(self) -> bool:
        """At the end of a file that was rotated away: open the one that came after it. False at the very end."""
        mine = os.fstat(self._file)
        files = files_of(self._log)
        if not mine.st_nlink:  # it was too old and has been deleted
            return bool(files) and self._change_to(files[0])
        for path, following in itertools.pairwise(files):
            try:
                if os.path.samestat(path.stat(), mine):
                    return self._change_to(following)
            except FileNotFoundError:
                continue
        return False

    def _change_to(self, path: Path) -> bool:
        # What was written between the last read and the rotation is still to be read.
        rest = os.read(self._file, _CHUNK)
        if rest:
            os.lseek(self._file, -len(rest), os.SEEK_CUR)
            return True
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return True
        os.close(self._file)
        self._file = fd
        return True
