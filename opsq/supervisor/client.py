"""The client's side of the control socket: ask, wait for the answer, and through a change of daemon."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Any

from opsq.exceptions import SupervisorError
from opsq.runtime import pidfile
from opsq.runtime.process import ProcessId
from opsq.runtime.statedir import StateDir
from opsq.supervisor.launch import keeper_pidfile, last_words
from opsq.supervisor.messages import Request, read_answer, write_request

#: How long a keeper may take to have a daemon that answers.
_PATIENCE_S = 10.0
_PAUSE_S = 0.02


def keeper(state: StateDir) -> ProcessId | None:
    """The keeper of this state directory, if it lives."""
    return pidfile.holder(keeper_pidfile(state))


def ask(state: StateDir, request: Request, patience_s: float = _PATIENCE_S) -> Mapping[str, Any]:
    """Have the supervisor do something, and wait until it is done. Raises SupervisorError, or what it answers."""
    line = write_request(request)
    deadline = time.monotonic() + patience_s
    while True:
        connection = _connect(state, deadline)
        with connection:
            answer = _exchange(connection, line)
        if answer:
            return read_answer(answer)
        if not request.repeatable:
            raise SupervisorError(
                f"nobody knows what became of {request.verb!r}", why="the supervisor was replaced", hint="opsq status"
            )
        deadline = time.monotonic() + patience_s


def _connect(state: StateDir, deadline: float) -> socket.socket:
    """A connection; while a keeper lives its daemon is waited for."""
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(state.control_socket))
            return connection
        except PermissionError:
            connection.close()
            raise SupervisorError("cannot reach the supervisor", why="it belongs to another user") from None
        except OSError:
            connection.close()
        if keeper(state) is None:
            raise SupervisorError("no supervisor runs here", why=f"looked in {state.root}", hint="opsq up")
        if time.monotonic() > deadline:
            raise SupervisorError("the supervisor does not answer", why=last_words(state), hint="opsq logs opsq")
        time.sleep(_PAUSE_S)


def _exchange(connection: socket.socket, line: bytes) -> bytes:
    """The answer; empty when the other side has gone."""
    heard = bytearray()
    try:
        connection.sendall(line)
        while not heard.endswith(b"\n"):
            data = connection.recv(1 << 16)
            if not data:
                return b""
            heard += data
    except OSError:
        return b""
    return bytes(heard)
