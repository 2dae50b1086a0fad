"""What a Redis URL says. Those of one server without options are read here; the others by redis-py (`redis_py.py`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from opsq.config.urls import joined

#: What a plain URL says besides the database.
_PLAIN = frozenset(("host", "port", "path", "username", "password", "db"))


@dataclass(frozen=True, slots=True)
class RedisURL:
    """Where the server is (`address`), how it is reached (`kind`), the database, and all that was said of the way to
    it in redis-py's words.

    `moves`: it names several servers, or Sentinels; which one is meant is found at each connect.
    """

    url: str
    address: str
    db: int
    kind: Literal["tcp", "tls", "unix"]
    arguments: Mapping[str, Any] = field(repr=False)
    moves: bool = False

    @property
    def plain(self) -> bool:
        """Whether an address, a login and a database are all there is to it."""
        return self.kind != "tls" and not self.moves and self.arguments.keys() <= _PLAIN


def plain_url(url: str) -> RedisURL | None:
    """What a plain URL says, None if redis-py is needed to read it. Raises ValueError."""
    if ";" in url:
        return None
    parts = urlsplit(url)
    if parts.scheme == "redis+socket":
        return _socket_url(url, parts)
    check_port(parts)
    if parts.query or parts.scheme not in ("redis", "unix"):
        return None
    if parts.scheme == "unix":
        path = unquote(parts.path)
        return RedisURL(url, path, 0, "unix", {**_login(parts), "path": path, "db": 0})
    host, port, db = unquote(parts.hostname or "localhost"), parts.port or 6379, database(parts)
    return RedisURL(url, f"{host}:{port}", db, "tcp", {**_login(parts), "host": host, "port": port, "db": db})


def _socket_url(url: str, parts: SplitResult) -> RedisURL | None:
    """kombu's form: `redis+socket:///path/to.sock?virtual_host=2`, user and password before the path."""
    query, path = dict(parse_qsl(parts.query)), unquote(parts.path)
    db = int(query.pop("virtual_host", "") or query.pop("db", "0"))
    if query:
        return None
    return RedisURL(url, path, db, "unix", {**_login(parts), "path": path, "db": db})


def _login(parts: SplitResult) -> dict[str, str]:
    found = {"username": parts.username, "password": parts.password}
    return {name: unquote(value) for name, value in found.items() if value}


def check_port(parts: SplitResult) -> None:
    """Raises ValueError."""
    try:
        parts.port  # noqa: B018 (it is read here, and it may be no port)
    except ValueError:
        raise ValueError("its port is no number from 0 to 65535") from None


def database(parts: SplitResult) -> int:
    """The database that the path of a URL names. Raises ValueError."""
    text = parts.path.strip("/")
    if text and not text.isdigit():
        raise ValueError(f"its database {text!r} is no number")
    return int(text or 0)


def each_url(url: str) -> list[str]:
    """The URLs that a text names, with `;` between them."""
    return [each.strip() for each in url.split(";") if each.strip()] or [url]


def masked(url: str) -> str:
    """The URL, or the URLs, with their passwords hidden, fit for banners, logs and errors."""
    return ";".join(map(_masked, each_url(url)))


def _masked(url: str) -> str:
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return "(unreadable URL)"
    parts = parts._replace(query=re.sub(r"(password=)[^&]*", r"\1**", parts.query))
    if password:
        head, _, tail = parts.netloc.rpartition("@")
        parts = parts._replace(netloc=f"{head.partition(':')[0]}:**@{tail}")
    return joined(parts) if password or "password=**" in parts.query else url
