"""A host's memory of the orders that it has started: on disk before the command starts, shared by all its agents.

One JSON line an order. A torn last line is ignored, entries go an hour after their order has expired. A new file begins
with its own birth, and older orders are refused: otherwise a host with a wiped disk would run the last hour again.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opsq.hosts.keyring import write_private

#: Seconds that an entry outlives its order: more than any clock should be set back.
KEEP_S = 3_600.0
_COMPACT_AT = 10_000


class Nonces:
    """The file, read on as other agents of this host add to it."""

    def __init__(self, path: Path, now: float) -> None:
        """`now`: Unix seconds. Raises OSError when the file cannot be used."""
        self._path = path
        self._lock_path = path.with_name(f".{path.name}.lock")
        self._mutex = threading.Lock()
        self._known: dict[str, float] = {}
        self._born = 0.0
        self._file = -1
        self._place = 0
        self._written = 0
        with self._locked():
            self._read_on(now)
            self._compact(now)

    def born(self) -> float:
        """When the file was made (Unix seconds)."""
        return self._born

    def has(self, nonce: str, now: float) -> bool:
        """Whether an order was started before, by whichever agent of this host."""
        with self._locked():
            self._read_on(now)
            return nonce in self._known

    def claim(self, nonce: str, job: str, exp: float, now: float) -> bool:
        """Write the order down; when this returns True it is on disk. False: it was started before. Raises OSError."""
        with self._locked():
            self._read_on(now)
            if nonce in self._known:
                return False
            self._append({"nonce": nonce, "job": job, "exp": exp})
            self._known[nonce] = exp
            self._written += 1
            if self._written >= _COMPACT_AT:
                self._compact(now)
            return True

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._mutex:
            fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield
            finally:
                os.close(fd)

    def _read_on(self, now: float) -> None:
        """What was added since; all of it when the file is another one by now."""
        if not self._is_current():
            self.close()
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._place = 0
        data = b""
        while part := os.pread(self._file, 1 << 20, self._place + len(data)):
            data += part
        whole, newline, torn = data.rpartition(b"\n")
        for line in whole.split(b"\n"):
            self._take(line)
        self._place += len(whole) + len(newline)
        if torn:
            os.ftruncate(self._file, self._place)
        if not self._born:
            self._born = now
            self._append({"born": now})

    def _is_current(self) -> bool:
        try:
            return self._file >= 0 and os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except FileNotFoundError:
            self._born = 0.0  # somebody took the memory away: a new one knows nothing of the past
            return False

    def _take(self, line: bytes) -> None:
        try:
            told: Any = json.loads(line)
        except ValueError:
            return
        if not isinstance(told, dict):
            return
        if isinstance(told.get("born"), int | float):
            self._born = max(self._born, told["born"])
        elif isinstance(told.get("nonce"), str) and isinstance(told.get("exp"), int | float):
            self._known[told["nonce"]] = told["exp"]

    def _append(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry).encode() + b"\n"
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(28, "no space left on device", str(self._path))
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self._place)
            raise
        self._place += len(line)

    def _compact(self, now: float) -> None:
        """Write the file anew without what is long over."""
        kept = {nonce: exp for nonce, exp in self._known.items() if exp + KEEP_S > now}
        self._written = 0
        if len(kept) == len(self._known):
            return
        lines = [json.dumps({"born": self._born}), *(json.dumps({"nonce": n, "exp": e}) for n, e in kept.items())]
        write_private(self._path, "\n".join(lines) + "\n")
        self._known = kept
        self.close()
        self._read_on(now)
