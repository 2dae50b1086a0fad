"""Waiting for results without a thread: one connection of a process wakes all who wait.

The first who waits reads the connection and hands over what is for others; when it has its own, another one takes the
lead. Whoever comes later writes its SUBSCRIBE and GET to the same connection while the leader reads.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any

from hiredis import PushNotification

from opsq.datastore.connection import explain
from opsq.datastore.line import Line
from opsq.datastore.trouble import BusyLoadingError, MasterDownError, ReadOnlyError, RedisError, TryAgainError
from opsq.exceptions import RefusedError

#: How long a server may be away (seconds) before those who wait without a time limit are told.
OUTAGE_S = 30.0
#: Between two tries to connect.
RETRY_S = 0.1
#: A server that says nothing for so long is asked whether it lives, and has as long to answer (seconds).
QUIET_S = 5.0
#: So many channels nobody listens to any more are given up together, on the way of another question.
STALE = 50
#: Errors that pass by themselves: the server has just started, or is about to change its role.
_PASSING = (BusyLoadingError, MasterDownError, ReadOnlyError, TryAgainError)


#: (key, record) each time.
Updates = Generator[tuple[bytes, bytes], None, None]


class _Lost(Exception):
    """The connection is gone; what was asked for must be asked again."""


class Waiter:
    """One who waits for keys: what has come for it, and a lock that is free when it should look."""

    __slots__ = ("absent", "error", "inbox", "keys", "wake")

    #: Whether its thread may read the connection.
    leads = True

    def __init__(self, keys: Sequence[bytes], absent: bool = False) -> None:
        self.keys, self.absent = keys, absent
        self.inbox: deque[tuple[bytes, bytes]] = deque()
        self.error: Exception | None = None
        self.wake = threading.Lock()
        self.wake.acquire()

    def notify(self) -> None:
        """Let its thread look. The subscriber's lock is held."""
        if self.wake.locked():
            self.wake.release()

    def news(self, until: float | None, interval_s: float) -> Generator[tuple[bytes, bytes] | float, None, None]:
        """What to hand on (`(b"", b"")` when an interval has passed), or the moment until which to wait for more.

        Ends at `until` (monotonic); raises the error that it was told.
        """
        tick = time.monotonic() + interval_s
        while True:
            while self.inbox:
                yield self.inbox.popleft()
            if self.error is not None:
                raise self.error
            now = time.monotonic()
            if until is not None and now >= until:
                return
            if now >= tick:
                tick = now + interval_s
                yield b"", b""
            yield tick if until is None else min(tick, until)


class Subscriber:
    """The connection of this process on which one server announces what is stored."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._start_anew()
        _all.add(self)

    def _start_anew(self) -> None:
        """As new; also in a forked child, where the parent's connection and its waiting threads are not ours."""
        self._lock = threading.Lock()
        self._waiters: dict[bytes, list[Waiter]] = {}
        self._leader: Waiter | None = None
        #: Leads when nobody else can: it waits for no key of its own.
        self._reader: Waiter | None = None
        self._stale: set[bytes] = set()
        self._line: Line | None = None
        self._asked: deque[Sequence[bytes]] = deque()
        self._ever = False
        self._lost_at: float | None = None
        self._heard_at = 0.0
        self._pinged = False

    @property
    def away(self) -> bool:
        """Whether the server could not be reached when that was last tried."""
        return self._lost_at is not None

    def updates(self, keys: Sequence[bytes], until: float | None, interval_s: float, absent: bool = False) -> Updates:
        """What is or will be stored under these keys, as (key, record); `(b"", b"")` when an interval has passed.

        `absent`: also `(key, b"")` of what is not there when it begins to listen. Ends at `until` (monotonic). The
        caller closes it when enough has come.
        """
        return self._updates(Waiter(keys, absent), until, interval_s)

    def _updates(self, waiter: Waiter, until: float | None, interval_s: float) -> Updates:
        try:
            with self._lock:
                self._enter(waiter)
            for news in waiter.news(until, interval_s):
                if isinstance(news, tuple):
                    yield news
                elif self._leader is waiter:
                    self._lead(waiter, news)
                else:
                    waiter.wake.acquire(timeout=max(news - time.monotonic(), 0))
        finally:
            with self._lock:
                self._leave(waiter)

    # -- who waits; the lock is held -----------------------------------------------------------------------------------

    def _enter(self, waiter: Waiter) -> None:
        for key in waiter.keys:
            self._waiters.setdefault(key, []).append(waiter)
        if self._leader is None and waiter.leads:
            self._leader = waiter
        if self._line is not None and waiter.keys:
            try:
                self._ask(self._line, waiter.keys)
            except (RedisError, OSError):
                self._line.hang_up()

    def _leave(self, waiter: Waiter) -> None:
        for key in waiter.keys:
            left = self._waiters.get(key)
            if left is not None and waiter in left:
                left.remove(waiter)
                if not left:
                    del self._waiters[key]
                    self._stale.add(key)
        if self._leader is waiter:
            able = (each for waiters in self._waiters.values() for each in waiters if each.leads)
            self._leader = next(able, self._reader)
            if self._leader is not None:
                self._leader.notify()

    def _tell_all(self, error: Exception) -> None:
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.error = error
                waiter.notify()

    # -- the connection; the lock is held ------------------------------------------------------------------------------

    def _ask(self, line: Line, keys: Sequence[bytes]) -> None:
        """Subscribe and read in one write; what nobody waits for any more is given up on the way."""
        stale = []
        if len(self._stale) >= STALE:
            stale = [key for key in self._stale if key not in self._waiters]
            self._stale.clear()
        self._asked.append(keys)
        given_up = [("UNSUBSCRIBE", *stale)] if stale else []
        line.send(*given_up, ("SUBSCRIBE", *keys), ("MGET", *keys))

    def _connect(self) -> Line:
        """A new connection, which asks for everything that is waited for."""
        line = Line(self.url)
        line.on_push = line.keep
        line.connect()
        self._line = line
        self._heard_at, self._pinged = time.monotonic(), False
        if self._waiters:
            self._ask(line, list(self._waiters))
        return line

    def _drop(self) -> None:
        if self._line is not None:
            self._line.close()
        self._line = None
        self._asked.clear()
        self._stale.clear()

    # -- the leader ----------------------------------------------------------------------------------------------------

    def _lead(self, waiter: Waiter, end: float) -> None:
        """Read until something has come for this waiter, or until `end`."""
        while not waiter.inbox and waiter.error is None and (left := end - time.monotonic()) > 0:
            try:
                line = self._line
                if line is None:
                    with self._lock:
                        line = self._connect()
                self._read(line, left)
            except (RedisError, OSError, _Lost) as error:
                waiter.error = self._lost(error)
                if waiter.error is None:
                    time.sleep(min(RETRY_S, left))
            except BaseException:  # bytes may have been read and not used
                if self._line is not None:
                    self._line.hang_up()
                raise

    def _read(self, line: Line, left: float) -> None:
        """One read of the connection; hands over what it brings."""
        if not line.readable(min(left, QUIET_S)):
            self._look_whether_it_lives(line)
            return
        line.read()
        self._heard_at, self._pinged = time.monotonic(), False
        with self._lock:
            for reply in line.drain():
                self._take(reply)

    def _look_whether_it_lives(self, line: Line) -> None:
        """A server that only goes silent does not close the connection."""
        if time.monotonic() - self._heard_at < QUIET_S:
            return
        if self._pinged:
            raise _Lost("no answer in time")
        with self._lock:
            line.send(("PING",))
        self._heard_at, self._pinged = time.monotonic(), True

    def _take(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            if not isinstance(reply, _PASSING):
                self._tell_all(explain(reply, self.url))
            raise _Lost(str(reply))
        if isinstance(reply, PushNotification):
            if reply[0] == b"message":
                self._hand_over(reply[1], reply[2])
        elif reply != b"PONG":
            self._ever, self._lost_at = True, None
            for key, record in zip(self._asked.popleft(), reply, strict=True):
                self._hand_over(key, record)

    def _hand_over(self, key: bytes, record: bytes | None) -> None:
        for waiter in self._waiters.get(key, ()):
            if record is not None or waiter.absent:
                waiter.inbox.append((key, record or b""))
                if waiter is not self._leader:
                    waiter.notify()

    def _lost(self, error: Exception) -> Exception | None:
        """The connection is gone: None to try again, or what to tell who waits."""
        now = time.monotonic()
        with self._lock:
            self._drop()
            self._lost_at = self._lost_at or now
            away_s, first = now - self._lost_at, not self._ever
        told = explain(error, self.url)
        if isinstance(told, RefusedError) or (first and not isinstance(error, _Lost)) or away_s > OUTAGE_S:
            return told
        return None


_all: weakref.WeakSet[Subscriber] = weakref.WeakSet()


def _after_fork() -> None:
    for subscriber in _all:
        subscriber._start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
