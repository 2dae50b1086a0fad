"""Redis by URL: what a URL means, pooled clients (one a process and URL), and errors in the user's words.

Nothing here retries a command by itself: only the caller knows whether sending it twice is harmless.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url as parse_redis_url
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from opsq.exceptions import BrokerError, ImproperlyConfigured, RefusedError

SCHEMES = ("redis", "rediss", "redis+socket", "unix")

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


@dataclass(frozen=True, slots=True)
class RedisURL:
    """What a Redis URL says: where the server is (`address`), the database, and redis-py's arguments."""

    url: str
    address: str
    db: int
    connection_class: type[redis.Connection | redis.UnixDomainSocketConnection]
    arguments: Mapping[str, Any] = field(repr=False)


def parse_url(url: str) -> RedisURL:
    """Read `redis://`, `rediss://`, `redis+socket://` and `unix://` URLs; ImproperlyConfigured for all others."""
    scheme = urlsplit(url).scheme
    if scheme not in SCHEMES:
        raise ImproperlyConfigured(
            f"cannot use {masked(url)!r}",
            why="opsq speaks to Redis only",
            hint="use a URL that begins with redis://, rediss:// or redis+socket://",
        )
    try:
        if scheme == "redis+socket":
            return _socket_url(url)
        arguments: dict[str, Any] = dict(parse_redis_url(_with_plain_ssl_words(url)))  # type: ignore[no-untyped-call]
    except (ValueError, TypeError) as error:
        raise ImproperlyConfigured(f"cannot read the Redis URL {masked(url)!r}", why=str(error)) from None
    connection_class = arguments.pop("connection_class", redis.Connection)
    arguments["db"] = db = int(arguments.get("db") or 0)
    if "path" in arguments:
        return RedisURL(url, arguments["path"], db, redis.UnixDomainSocketConnection, arguments)
    database = urlsplit(url).path.strip("/")
    if database and not database.isdigit():
        raise ImproperlyConfigured(
            f"cannot read the Redis URL {masked(url)!r}", why=f"its database {database!r} is no number"
        )
    arguments.setdefault("host", "localhost")
    arguments.setdefault("port", 6379)
    return RedisURL(url, f"{arguments['host']}:{arguments['port']}", db, connection_class, arguments)


def _socket_url(url: str) -> RedisURL:
    """kombu's form: `redis+socket:///path/to.sock?virtual_host=2`, user and password before the path."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    arguments: dict[str, Any] = {
        "path": unquote(parts.path),
        "db": int(query.get("virtual_host", query.get("db", ["0"]))[0]),
    }
    if parts.username:
        arguments["username"] = unquote(parts.username)
    if parts.password:
        arguments["password"] = unquote(parts.password)
    return RedisURL(url, arguments["path"], arguments["db"], redis.UnixDomainSocketConnection, arguments)


def _with_plain_ssl_words(url: str) -> str:
    """Celery's URLs say `ssl_cert_reqs=CERT_NONE`, redis-py wants `none`."""
    for word in ("required", "optional", "none"):
        url = url.replace(f"ssl_cert_reqs=CERT_{word.upper()}", f"ssl_cert_reqs={word}")
    return url


def masked(url: str) -> str:
    """The URL with its password hidden, fit for banners, logs and errors."""
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return "(unreadable URL)"
    if not password:
        return url
    head, _, tail = parts.netloc.rpartition("@")
    user = head.partition(":")[0]
    return parts._replace(netloc=f"{user}:**@{tail}").geturl()


def with_db(url: str, db: int) -> str:
    """The same server, another database."""
    parts = urlsplit(url)
    if parts.scheme in ("redis+socket", "unix"):
        name = "virtual_host" if parts.scheme == "redis+socket" else "db"
        return parts._replace(query=f"{name}={db}").geturl()
    return parts._replace(path=quote(f"/{db}")).geturl()


def connection_arguments(where: RedisURL, **options: Any) -> dict[str, Any]:
    """redis-py's arguments for a connection to a server: keepalive, time-outs (seconds), no retry by itself."""
    arguments: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": REPLY_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        **where.arguments,
        **options,
    }
    if where.connection_class is not redis.UnixDomainSocketConnection:
        arguments.setdefault("socket_keepalive", True)
        arguments.setdefault("socket_keepalive_options", KEEPALIVE)
    return arguments


class Link(Protocol):
    """What we use of redis-py's connection: commands are sent and answers read when we say so."""

    db: Any
    _parser: Any
    _sock: Any

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def send_command(self, *command: Any, check_health: bool) -> None: ...
    def send_packed_command(self, command: Any, check_health: bool) -> None: ...
    def pack_command(self, *command: Any) -> Any: ...
    def pack_commands(self, commands: Any) -> Any: ...
    def can_read(self, timeout: float) -> bool: ...
    def read_response(self, push_request: bool = False) -> Any: ...


def connection(url: str, **options: Any) -> Link:
    """One connection of its own (RESP3 unless said otherwise), not yet connected."""
    where = parse_url(url)
    arguments = connection_arguments(where, **{"protocol": 3, **options})
    return cast(Link, where.connection_class(**arguments))


_clients: dict[tuple[int, str], redis.Redis] = {}


def client(url: str) -> redis.Redis:
    """A pooled client (RESP2, bytes in and out), one for each URL in this process; made anew after a fork."""
    key = (os.getpid(), url)
    found = _clients.get(key)
    if found is None:
        where = parse_url(url)
        pool = redis.ConnectionPool(connection_class=where.connection_class, protocol=2, **connection_arguments(where))
        found = _clients[key] = redis.Redis(connection_pool=pool)
    return found


#: All that trouble with a server raises: redis-py's errors, the system's, and ours that are made of them.
TROUBLE = (RedisError, OSError, BrokerError, RefusedError)


@contextmanager
def errors(url: str) -> Iterator[None]:
    """Turn redis-py's errors into ours: which server, why, and what to do."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise explain(error, url) from error


def explain(error: Exception, url: str) -> BrokerError | RefusedError:
    """A connection's or server's error as one of ours, in one sentence."""
    address = parse_url(url).address
    reason = str(error).strip() or type(error).__name__
    if isinstance(error, AuthenticationError) or "WRONGPASS" in reason or "NOAUTH" in reason:
        return RefusedError(
            f"Redis at {address} refused the login", why=reason, hint="check user and password in broker_url"
        )
    if isinstance(error, NoPermissionError):
        return RefusedError(f"Redis at {address} refused a command", why=reason, hint="check the ACL of this user")
    if isinstance(error, BusyLoadingError):
        return BrokerError(f"Redis at {address} is still loading its data", why=reason, hint="try again in a moment")
    if isinstance(error, ResponseError):
        return BrokerError(f"Redis at {address} answered with an error", why=reason)
    return BrokerError(
        f"cannot reach Redis at {address}",
        why=_plain_reason(error, reason),
        hint="is Redis running there? check broker_url",
    )


def _plain_reason(error: Exception, text: str) -> str:
    """The operating system's words without numbers and addresses."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, socket.gaierror):
            return "the host name is not known"
        if isinstance(seen, TimeoutError | redis.exceptions.TimeoutError):
            return "no answer in time"
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror.lower()
        seen = seen.__cause__ or seen.__context__
    return text
