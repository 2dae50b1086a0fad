"""Questions to a server over a bare socket, for commands that must start fast: importing redis-py takes longer than
all that `opsq status` does besides.

What a bare socket does not know (TLS, several servers, options in the URL) goes through redis-py, and so do the words
of every error.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

#: Commands sent in one write -> their answers; an error of the server among them is raised.
Ask = Callable[[Sequence[tuple[Any, ...]]], list[Any]]
_CONNECT_TIMEOUT_S = 4.0
_REPLY_TIMEOUT_S = 15.0
_DEFAULT_PORT = 6379


@contextmanager
def questions(url: str, reply_s: float = _REPLY_TIMEOUT_S) -> Iterator[Ask]:
    """A connection for some questions (RESP2, bytes). `reply_s`: how long an answer may take (seconds).

    Raises BrokerError and RefusedError.
    """
    first = _first_commands(url)
    if first is None:
        with _through_redis_py(url, reply_s) as ask:
            yield ask
        return
    try:
        with _connected(url, min(_CONNECT_TIMEOUT_S, reply_s)) as sock:
            sock.settimeout(reply_s)
            reader = hiredis.Reader()
            if first:
                _exchange(sock, reader, first)
            yield lambda commands: _exchange(sock, reader, commands)
    except (OSError, hiredis.HiredisError) as error:
        raise _explained(error, url) from error


def _first_commands(url: str) -> list[tuple[Any, ...]] | None:
    """Login and choice of database; None for a URL that only redis-py understands, or nobody."""
    if ";" in url:
        return None
    parts = urlsplit(url)
    try:
        parts.port  # noqa: B018
    except ValueError:
        return None
    query = parse_qs(parts.query)
    if parts.scheme in ("redis+socket", "unix"):
        known, place = {"db", "virtual_host"}, query.get("virtual_host", query.get("db", ["0"]))[0]
    else:
        known, place = set(), parts.path.strip("/") or "0"
    if parts.scheme not in ("redis", "redis+socket", "unix") or set(query) - known or not place.isdigit():
        return None
    login = [unquote(word) for word in (parts.username, parts.password) if word]
    return [*([("AUTH", *login)] if parts.password else []), *([("SELECT", place)] if int(place) else [])]


def _connected(url: str, timeout_s: float) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme == "redis":
        return socket.create_connection((parts.hostname or "localhost", parts.port or _DEFAULT_PORT), timeout_s)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        sock.connect(unquote(parts.path))
    except OSError:
        sock.close()
        raise
    return sock


def _exchange(sock: socket.socket, reader: hiredis.Reader, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    sock.sendall(b"".join([hiredis.pack_command(command) for command in commands]))
    answers: list[Any] = []
    while len(answers) < len(commands):
        answer = reader.gets()
        if answer is False:
            data = sock.recv(65_536)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            reader.feed(data)
        elif isinstance(answer, hiredis.ReplyError):
            raise answer
        else:
            answers.append(answer)
    return answers


@contextmanager
def _through_redis_py(url: str, reply_s: float) -> Iterator[Ask]:
    from opsq.datastore.connection import errors
    from opsq.datastore.line import Line

    with errors(url):
        line = Line(url, reply_s=reply_s, protocol=2)

        def ask(commands: Sequence[tuple[Any, ...]]) -> list[Any]:
            line.send(*commands)
            return [line.receive() for _ in commands]

        try:
            yield ask
        finally:
            line.close()


def _explained(error: Exception, url: str) -> Exception:
    """The same words as everywhere."""
    from redis._parsers import BaseParser

    from opsq.datastore.connection import explain

    if isinstance(error, hiredis.ReplyError):
        parser: Any = BaseParser
        error = parser.parse_error(str(error))
    return explain(error, url)
