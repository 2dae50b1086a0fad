"""The way to one server: a bare socket that was let in. TLS, several servers and Sentinels are redis-py's."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import hiredis

from opsq.datastore.trouble import NoRedis, RedisConnectionError, RedisTimeoutError, of_answer
from opsq.datastore.url import RedisURL

#: A dead peer is noticed after 15 s, whoever forgot the connection (DESIGN section 4).
KEEPALIVE = {
    getattr(socket, name): value
    for name, value in (
        ("TCP_KEEPIDLE", 5),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 15_000),
    )
    if hasattr(socket, name)
}
CONNECT_TIMEOUT_S = 4.0
REPLY_TIMEOUT_S = 15.0


class Link(Protocol):
    """A connection whose bytes somebody else moves."""

    @property
    def sock(self) -> Any:
        """The socket; None while it is not connected."""

    def connect(self) -> None:
        """Connect, if it is not. Raises RedisError."""

    def disconnect(self) -> None:
        """Let go of the connection."""


class PlainLink:
    """A link to the server of a plain URL."""

    def __init__(self, where: RedisURL, reply_s: float | None, protocol: int) -> None:
        """`reply_s`: how long an answer may take (seconds), None = 15; `protocol`: of RESP, 2 or 3."""
        self._where, self._reply_s = where, REPLY_TIMEOUT_S if reply_s is None else reply_s
        self._greeting = _greeting(where.arguments, protocol)
        self.sock: Any = None
        self._process = 0

    def connect(self) -> None:
        """Connect, log in, choose the database: one round trip. Raises RedisError."""
        try:
            with _told_of(self._where.address):
                self.sock = self._open()
                self._process = os.getpid()
                self.sock.settimeout(self._reply_s)
                self._greet()
        except BaseException:
            self.disconnect()
            raise

    def disconnect(self) -> None:
        """Let go of it. What was opened before a fork is not ours to end."""
        sock, self.sock = self.sock, None
        if sock is None:
            return
        if os.getpid() == self._process:
            with suppress(OSError):  # the server has ended it
                sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    def _open(self) -> socket.socket:
        told, timeout_s = self._where.arguments, min(CONNECT_TIMEOUT_S, self._reply_s)
        if "path" in told:
            return _connected(socket.AF_UNIX, told["path"], timeout_s)
        trouble: OSError = OSError("the host has no address")
        for family, _kind, _protocol, _name, place in socket.getaddrinfo(
            told["host"], told["port"], type=socket.SOCK_STREAM
        ):
            try:
                return _connected(family, place, timeout_s)
            except OSError as error:
                trouble = error
        raise trouble

    def _greet(self) -> None:
        if not self._greeting:
            return
        self.sock.sendall(b"".join([hiredis.pack_command(words) for words in self._greeting]))
        reader = hiredis.Reader(protocolError=NoRedis, replyError=of_answer)
        for _ in self._greeting:
            while (answer := reader.gets()) is False:
                data = self.sock.recv(65_536)
                if not data:
                    raise RedisConnectionError("the server closed the connection")
                reader.feed(data)
            if isinstance(answer, Exception):
                raise answer


def _greeting(told: Mapping[str, Any], protocol: int) -> Sequence[tuple[Any, ...]]:
    name, password = told.get("username"), told.get("password", "")
    login = [name, password] if name else [password] if password else []
    found: list[tuple[Any, ...]] = []
    if protocol == 3:
        found.append(("HELLO", 3, "AUTH", *["default"][: 2 - len(login)], *login) if login else ("HELLO", 3))
    elif login:
        found.append(("AUTH", *login))
    return [*found, *([("SELECT", told["db"])] if told["db"] else [])]


def _connected(family: int, place: Any, timeout_s: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE.items():
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        sock.settimeout(timeout_s)
        sock.connect(place)
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def _told_of(address: str) -> Iterator[None]:
    """The system's errors in connecting as ours."""
    try:
        yield
    except TimeoutError as error:
        raise RedisTimeoutError(f"no answer from {address} in time") from error
    except OSError as error:
        raise RedisConnectionError(f"cannot connect to {address}: {error.strerror or error}") from error
