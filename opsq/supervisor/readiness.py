"""Whether programs are ready: what they say of themselves (sd_notify), and what their sockets answer."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable, Iterable

from opsq.runtime.notify import Notice
from opsq.supervisor.child import Child
from opsq.supervisor.plan import Answer
from opsq.supervisor.timers import Timers

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.25


def said_by(notice: Notice, children: Iterable[Child]) -> Child | None:
    """The program that a notice comes from: its main process, or another one of its session."""
    try:
        session = os.getsid(notice.pid)
    except OSError:
        session = 0
    for child in children:
        if child.process is not None and child.process.pid in (notice.pid, session):
            return child
    return None


class Question:
    """Asks a socket until it answers as it should. Ends by itself when `still_wanted` says no."""

    def __init__(
        self,
        wanted: Answer,
        selector: selectors.BaseSelector,
        timers: Timers,
        still_wanted: Callable[[], bool],
        done: Callable[[], None],
    ) -> None:
        self._wanted, self._selector, self._timers = wanted, selector, timers
        self._still_wanted, self._done = still_wanted, done
        self._pause_s = _FIRST_PAUSE_S
        self._socket: socket.socket | None = None
        self._ask()

    def _ask(self) -> None:
        if not self._still_wanted():
            return
        asking = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            asking.connect(self._wanted.socket)
            asking.send(self._wanted.send.encode())
        except OSError:
            asking.close()
            self._again()
            return
        self._socket = asking
        self._selector.register(asking, selectors.EVENT_READ, self._heard)

    def _heard(self) -> None:
        assert self._socket is not None
        try:
            answer = self._socket.recv(4096)
        except OSError:
            answer = b""
        self._selector.unregister(self._socket)
        self._socket.close()
        self._socket = None
        if not answer.startswith(self._wanted.expect.encode()):
            self._again()
        elif self._still_wanted():
            self._done()

    def _again(self) -> None:
        self._timers.later(self._pause_s, self._ask)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
