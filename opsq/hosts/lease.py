"""Which agent serves a host: a lease in Redis, and a lock in the key directory for the agents of one machine.

The lease's value is `<machine>/<place>.<life>`: the machine and its host key, the lock, and one life of an agent. The
kernel frees the lock of an agent that has ended, so its successor takes over at once; a second agent of the machine
stands by; another machine under the same name is refused.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opsq.datastore import keys
from opsq.datastore.connection import parse_url
from opsq.datastore.line import Line
from opsq.exceptions import RefusedError

_LOOK_S = 0.5


class Lease:
    """One agent's claim to be the host `name` at one broker. `lease_s`: how long it holds without renewal."""

    def __init__(self, name: str, machine: str, folder: Path, url: str, lease_s: float) -> None:
        where = parse_url(url)
        place = hashlib.sha256(f"{where.address}/{where.db}".encode()).hexdigest()[:8]
        self._name, self._machine, self._lease_s = name, machine, lease_s
        self._key = keys.host_lease(name)
        self._prefix = f"{machine}/{place}.".encode()
        self._mine = self._prefix + secrets.token_hex(4).encode()
        self._lock_path = folder / f".agent-{name}-{place}.lock"
        self._lock = -1
        self._held_until = 0.0

    @property
    def instance(self) -> str:
        """The lease's value."""
        return self._mine.decode()

    def claim(self, line: Line, stand_by: Callable[[float], bool]) -> bool:
        """Take the place as soon as it is free; `stand_by(seconds)` waits and says whether to go on.

        False: it is not wanted any more. Raises RefusedError when another machine keeps renewing it.
        """
        stranger_since: float | None = None
        while True:
            holder = self._try(line)
            if holder is None:
                self._held_until = time.monotonic() + self._lease_s
                return True
            if holder.partition(b"/")[0] == self._machine.encode():
                stranger_since = None
            else:
                stranger_since = stranger_since or time.monotonic()
                if time.monotonic() - stranger_since > self._lease_s + 2 * _LOOK_S:
                    raise RefusedError(
                        f"the name {self._name} is taken",
                        why="an agent of another machine, or of another user of this one, goes by it",
                        hint="opsq agent --name NAME",
                    )
            if not stand_by(_LOOK_S):
                return False

    def _try(self, line: Line) -> bytes | None:
        """None when the place is ours now; else the value of who has it."""
        milliseconds = int(self._lease_s * 1000)
        if not self._locked():
            line.ask("PING")
            return self._machine.encode() + b"/"
        if line.ask("SET", self._key, self._mine, "NX", "PX", milliseconds):
            return None
        holder: bytes | None = line.ask("GET", self._key)
        if holder is None:
            return self._machine.encode() + b"/"
        if holder.startswith(self._prefix):  # we hold the lock that it held: that agent has ended
            line.ask("SET", self._key, self._mine, "PX", milliseconds)
            return None
        return holder

    def renewal(self) -> tuple[Any, ...] | None:
        """The command that renews it; None when it may have run out, so that another one may have it by now."""
        if time.monotonic() > self._held_until:
            return None
        return "SET", self._key, self._mine, "PX", int(self._lease_s * 1000), "GET"

    def renewed(self, previous: bytes | None, sent: float) -> bool:
        """Take in the answer to a renewal that was sent then (monotonic). False: somebody else had the place."""
        self._held_until = sent + self._lease_s
        return previous is None or previous == self._mine

    def give_up(self, line: Line) -> None:
        """Free the place in Redis, if it is ours."""
        if line.ask("GET", self._key) == self._mine:
            line.ask("DEL", self._key)

    def unlock(self) -> None:
        """Free the place on this machine."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _locked(self) -> bool:
        """Whether this is the only agent of this key directory for the broker."""
        if self._lock < 0:
            fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return False
            self._lock = fd
        return True
