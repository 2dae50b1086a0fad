"""The control socket: who may speak, one request a connection, answers now or when it is time. Knows no verb."""

from __future__ import annotations

import os
import selectors
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from opsq.exceptions import OpsqError, RefusedError
from opsq.supervisor.messages import Request, read_request, write_error, write_values

Values = Mapping[str, Any]
#: What a handler returns: the answer, or what will return it once it is known.
Reply = Values | Callable[[], Values | None]
_LONGEST_LINE = 16 << 20


class Connection:
    """One client."""

    def __init__(self, server: Server, connection: socket.socket) -> None:
        self._server, self._socket = server, connection
        self._heard, self._to_say = bytearray(), b""
        self._answered = False
        self.waits_for: Callable[[], Values | None] | None = None
        connection.setblocking(False)
        server.selector.register(connection, selectors.EVENT_READ, self._ready)

    def _ready(self) -> None:
        if self._to_say:
            self._write()
        else:
            self._read()

    def _read(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(self._heard) > _LONGEST_LINE:
            self.close()
            return
        self._heard += data
        line, newline, _rest = self._heard.partition(b"\n")
        if newline and not self._answered and self.waits_for is None:
            self._server.take(self, bytes(line))

    def answer(self, line: bytes) -> None:
        """Say it, then close."""
        self._answered, self.waits_for, self._to_say = True, None, line
        self._write()

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._to_say)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self._to_say = self._to_say[sent:]
        if self._to_say:
            self._server.selector.modify(self._socket, selectors.EVENT_WRITE, self._ready)
        else:
            self.close()

    def close(self) -> None:
        """End the connection."""
        if self._socket.fileno() >= 0:
            self._server.selector.unregister(self._socket)
            self._socket.close()
        self._server.connections.discard(self)


class Server:
    """Listens on a Unix socket for this user alone. `handle` knows the verbs."""

    def __init__(self, path: Path, selector: selectors.BaseSelector, handle: Callable[[Request], Reply]) -> None:
        self.selector, self._handle, self._path = selector, handle, path
        self.connections: set[Connection] = set()
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Made under a stricter mask, so that there is no moment in which others could connect.
        before = os.umask(0o177)
        try:
            self._listener.bind(str(path))
        finally:
            os.umask(before)
        self._listener.listen(64)
        self._listener.setblocking(False)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        try:
            connection, _address = self._listener.accept()
        except OSError:
            return
        client = Connection(self, connection)
        self.connections.add(client)
        if not _is_ours(connection):
            client.answer(write_error(RefusedError("the supervisor here belongs to another user")))

    def take(self, client: Connection, line: bytes) -> None:
        """Do what a client wants, and answer it, now or later."""
        try:
            reply = self._handle(read_request(line))
        except OpsqError as error:
            client.answer(write_error(error))
            return
        if callable(reply):
            client.waits_for = reply
        else:
            client.answer(write_values(reply))

    def answer_waiting(self) -> None:
        """Answer those whose time has come."""
        for client in list(self.connections):
            if client.waits_for is not None and (values := client.waits_for()) is not None:
                client.answer(write_values(values))

    def close(self) -> None:
        """Listen no more."""
        self._path.unlink(missing_ok=True)
        self.selector.unregister(self._listener)
        self._listener.close()
        for client in list(self.connections):
            client.close()


def _is_ours(connection: socket.socket) -> bool:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return uid in (0, os.geteuid())
