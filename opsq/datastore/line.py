"""One connection to Redis whose bytes we move ourselves: what the engine and publishing speak through.

A link makes the connection; hiredis packs and reads, without layers in between, which cost more than Redis' own work on
a small command. Nothing is ever repeated here.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import hiredis

from opsq.datastore.connection import errors, link, parse_url
from opsq.datastore.trouble import (
    NoRedis,
    RedisConnectionError,
    RedisTimeoutError,
    Replica,
    ResponseError,
    is_read_only,
    of_answer,
)
from opsq.runtime.ready import readable

#: Commands sent in one write -> their answers; an error of the server among them is raised.
Ask = Callable[[Sequence[tuple[Any, ...]]], list[Any]]


class Line:
    """A connection, used by one thread at a time. All methods raise RedisError.

    A server that answers as a replica counts as lost.
    """

    def __init__(self, url: str, *, reply_s: float | None = None, protocol: int = 3) -> None:
        """`reply_s`: how long an answer may take (seconds), None = as long as the URL lets it."""
        where = parse_url(url)
        self._link, self.db = link(where, reply_s, protocol), where.db
        #: Called with what the server sends unasked.
        self.on_push: Callable[[Sequence[Any]], None] | None = None
        self._sock: Any = None
        self._reader: Any = None
        self._replies: deque[Any] = deque()

    def connect(self) -> None:
        """Connect anew."""
        self.close()
        self._link.connect()
        self._sock = self._link.sock
        self._reader = hiredis.Reader(protocolError=NoRedis, replyError=of_answer)

    def close(self) -> None:
        """Let go of the connection."""
        self._link.disconnect()
        self._sock = None
        self._replies.clear()

    def hang_up(self) -> None:
        """End the connection from another thread: whoever reads from it sees its end."""
        if self._sock is not None:
            with suppress(OSError):  # it is gone already
                self._sock.shutdown(socket.SHUT_RDWR)

    def __del__(self) -> None:
        """A thread that published has ended: its line goes with it."""
        with suppress(Exception):
            self.close()

    def fileno(self) -> int:
        """The socket's descriptor, for who waits for other things too; -1 while not connected."""
        return -1 if self._sock is None else int(self._sock.fileno())

    def send(self, *commands: tuple[Any, ...] | bytes) -> None:
        """Send commands (or what `packed` has made of them) in one write; each has an answer to be received."""
        if self._sock is None:
            self.connect()
        if len(commands) == 1 and not isinstance(commands[0], bytes):
            data = hiredis.pack_command(commands[0])
        else:
            data = b"".join([each if isinstance(each, bytes) else hiredis.pack_command(each) for each in commands])
        try:
            sent = self._sock.send(data)
            while sent < len(data):  # the time-out is of each piece: a slow way is no silence
                sent += self._sock.send(memoryview(data)[sent:])
        except TimeoutError as error:
            raise RedisTimeoutError("the server takes nothing") from error
        except OSError as error:
            raise RedisConnectionError(str(error)) from error

    def receive(self) -> Any:
        """The next answer; an error of the server is raised."""
        while not self._replies:
            self.read()
        reply = self._replies.popleft()
        if isinstance(reply, Exception):
            if is_read_only(reply):  # whoever connects anew finds the master, where there is one
                self.close()
                raise Replica
            raise reply
        return reply

    def keep(self, push: Sequence[Any]) -> None:
        """For `on_push`: have what is sent unasked stand among the answers, in the order in which it came."""
        self._replies.append(push)

    def drain(self) -> Iterator[Any]:
        """All that was read and not taken yet, in its order; errors of the server as values."""
        while self._replies:
            yield self._replies.popleft()

    def ask(self, *command: Any) -> Any:
        """A command and its answer."""
        self.send(command)
        return self.receive()

    def ask_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Commands in one write, and their answers; the first error of the server is raised."""
        self.send(*commands)
        answers: list[Any] = []
        refused: list[ResponseError] = []
        for _ in commands:
            try:
                answers.append(self.receive())
            except ResponseError as error:
                refused.append(error)
        if refused:
            raise refused[0]
        return answers

    def readable(self, timeout_s: float) -> bool:
        """Whether something arrives within the time (seconds), be it the end of the connection; reads nothing."""
        if self._replies or (hasattr(self._sock, "pending") and self._sock.pending()):
            return True
        return bool(readable([self._sock.fileno()], timeout_s))

    def read(self) -> None:
        """Read once, waiting for it; hands pushes over and keeps answers."""
        if self._sock is None:
            raise RedisConnectionError("not connected")
        try:
            data = self._sock.recv(65_536)  # Python counts its time-out through signals, the kernel would begin anew
        except TimeoutError as error:
            raise RedisTimeoutError("no answer in time") from error
        except OSError as error:
            raise RedisConnectionError(str(error)) from error
        if not data:
            raise RedisConnectionError("the server closed the connection")
        reader = self._reader
        reader.feed(data)
        while (reply := reader.gets()) is not False:
            if not isinstance(reply, hiredis.PushNotification):
                self._replies.append(reply)
            elif self.on_push is not None:
                self.on_push(reply)


def packed(*words: bytes) -> bytes:
    """A command as it is sent. For hundreds of large words: hiredis copies all that it has, again and again, as it
    grows, which takes several times as long.
    """
    return b"".join([b"*%d\r\n" % len(words), *[b"$%d\r\n%b\r\n" % (len(word), word) for word in words]])


@contextmanager
def questions(url: str, reply_s: float | None = None) -> Iterator[Ask]:
    """A connection for some questions (RESP2, bytes). `reply_s`: how long an answer may take (seconds).

    Raises BrokerError and RefusedError.
    """
    with errors(url):
        line = Line(url, reply_s=reply_s, protocol=2)
        try:
            yield line.ask_all
        finally:
            line.close()
