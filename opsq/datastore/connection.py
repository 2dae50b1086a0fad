"""Redis by URL: what a URL means, pooled clients (one a process and URL), and errors in the user's words.

Nothing here retries a command by itself: only the caller knows whether sending it twice is harmless.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

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

from opsq.datastore.seeking import SEEKING, Replica, Sentinels, Several, is_read_only, plain_reason, sentinel_link
from opsq.datastore.seeking import address as place_address
from opsq.exceptions import BrokerError, ImproperlyConfigured, RefusedError

SCHEMES = ("redis", "rediss", "redis+socket", "unix", "sentinel")
_SENTINEL_PORT = 26379

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
#: The same where there is another server to go to.
REPLY_TIMEOUT_OF_SEVERAL_S = 5.0


@dataclass(frozen=True, slots=True)
class RedisURL:
    """What a Redis URL says: where the server is (`address`), the database, and redis-py's arguments.

    `moves`: it names several servers, or Sentinels; which one is meant is found at each connect.
    """

    url: str
    address: str
    db: int
    connection_class: type[redis.Connection | redis.UnixDomainSocketConnection]
    arguments: Mapping[str, Any] = field(repr=False)
    moves: bool = False


def parse_url(url: str) -> RedisURL:
    """Read a URL, or several of one replicated set with `;` between them. Raises ImproperlyConfigured.

    `redis://`, `rediss://`, `redis+socket://`, `unix://`, and `sentinel://` with the master's name in the first one's
    query (`?master_name=NAME`); login, database and options of the master stand in that first one too, as for Celery.
    """
    urls = each_url(url)
    for each in urls:
        if urlsplit(each).scheme not in SCHEMES:
            raise ImproperlyConfigured(
                f"cannot use {masked(each)!r}",
                why="opsq speaks to Redis only",
                hint="use a URL that begins with redis://, rediss://, redis+socket:// or sentinel://",
            )
    try:
        if any(urlsplit(each).scheme == "sentinel" for each in urls):
            return _of_sentinels(url, urls)
        found = [_one_server(each) for each in urls]
    except (ValueError, TypeError) as error:
        raise ImproperlyConfigured(f"cannot read the Redis URL {masked(url)!r}", why=str(error)) from None
    return found[0] if len(found) == 1 else _several(url, found)


def each_url(url: str) -> list[str]:
    """The URLs that a text names, with `;` between them."""
    return [each.strip() for each in url.split(";") if each.strip()] or [url]


def _one_server(url: str) -> RedisURL:
    parts = urlsplit(url)
    if parts.scheme == "redis+socket":
        return _socket_url(url)
    try:
        parts.port  # noqa: B018 (it is read here, and it may be no port)
    except ValueError:
        raise ValueError("its port is no number from 0 to 65535") from None
    arguments: dict[str, Any] = dict(parse_redis_url(_with_plain_ssl_words(url)))  # type: ignore[no-untyped-call]
    connection_class = arguments.pop("connection_class", redis.Connection)
    arguments["db"] = db = int(arguments.get("db") or 0)
    if "path" in arguments:
        return RedisURL(url, arguments["path"], db, redis.UnixDomainSocketConnection, arguments)
    database = parts.path.strip("/")
    if database and not database.isdigit():
        raise ValueError(f"its database {database!r} is no number")
    arguments.setdefault("host", "localhost")
    arguments.setdefault("port", 6379)
    return RedisURL(url, f"{arguments['host']}:{arguments['port']}", db, connection_class, arguments)


def _socket_url(url: str) -> RedisURL:
    """kombu's form: `redis+socket:///path/to.sock?virtual_host=2`, user and password before the path."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    db = int(query.pop("virtual_host", "") or query.pop("db", "0"))
    as_unix = parse_redis_url(f"unix://{parts.path}?{urlencode(query)}")  # type: ignore[no-untyped-call]
    arguments: dict[str, Any] = {**as_unix, "path": unquote(parts.path), "db": db}
    arguments.pop("connection_class", None)
    if parts.username:
        arguments["username"] = unquote(parts.username)
    if parts.password:
        arguments["password"] = unquote(parts.password)
    return RedisURL(url, arguments["path"], arguments["db"], redis.UnixDomainSocketConnection, arguments)


def _several(url: str, found: Sequence[RedisURL]) -> RedisURL:
    """Servers of one replicated set: they differ in place and login only."""
    first = found[0]
    if len({(each.db, each.connection_class) for each in found}) > 1:
        raise ImproperlyConfigured(
            f"cannot use {masked(url)!r}",
            why="several servers must be copies of one: of the same kind, with the same database",
        )
    places = [{"username": None, "password": None, **_picked(each.arguments, _PLACE)} for each in found]
    arguments = {**first.arguments, "finder": Several(places)}
    names = " or ".join(each.address for each in found)
    return RedisURL(url, names, first.db, SEEKING[first.connection_class], arguments, moves=True)


_PLACE = ("host", "port", "path", "username", "password")


def _of_sentinels(url: str, urls: Sequence[str]) -> RedisURL:
    parts = [urlsplit(each) for each in urls]
    query = dict(parse_qsl(parts[0].query))
    master = query.pop("master_name", "")
    if not master or any(each.scheme != "sentinel" for each in parts):
        why = "all of them must be Sentinels" if master else "it does not say the name of the master"
        raise ImproperlyConfigured(
            f"cannot use {masked(url)!r}",
            why=why,
            hint='set broker_transport_options, for results result_backend_transport_options, to {"master_name": NAME}',
        )
    own = {name.removeprefix("sentinel_"): query.pop(name) for name in list(query) if name.startswith("sentinel_")}
    server, sentinel = _master_of(parts[0], query), _master_of(urlsplit("redis://localhost"), own)
    places = [{"host": each.hostname or "localhost", "port": each.port or _SENTINEL_PORT} for each in parts]
    open_link = sentinel_link(sentinel.connection_class, {**sentinel.arguments, "db": 0})
    names = ", ".join(map(place_address, places))
    arguments = {**server.arguments, "finder": Sentinels(places, master, open_link)}
    address = f"{master} (of the Sentinels {names})"
    return RedisURL(url, address, server.db, SEEKING[server.connection_class], arguments, moves=True)


def _master_of(parts: SplitResult, query: Mapping[str, str]) -> RedisURL:
    """What a Sentinel's URL says of the master it watches; `ssl=true` means TLS, as do words that begin with ssl_."""
    words = dict(query)
    tls = words.pop("ssl", "").lower() in ("true", "1", "yes") or any(word.startswith("ssl_") for word in words)
    url = parts._replace(scheme="rediss" if tls else "redis", query=urlencode(words)).geturl()
    return _one_server(url)


def _picked(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _with_plain_ssl_words(url: str) -> str:
    """Celery's URLs say `ssl_cert_reqs=CERT_NONE`, redis-py wants `none`."""
    for word in ("required", "optional", "none"):
        url = url.replace(f"ssl_cert_reqs=CERT_{word.upper()}", f"ssl_cert_reqs={word}")
    return url


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
    return parts.geturl() if password or "password=**" in parts.query else url


def connection_arguments(where: RedisURL, **options: Any) -> dict[str, Any]:
    """redis-py's arguments for a connection to a server: keepalive, time-outs (seconds), no retry by itself."""
    arguments: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": REPLY_TIMEOUT_OF_SEVERAL_S if where.moves else REPLY_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        **where.arguments,
        **options,
    }
    if not issubclass(where.connection_class, redis.UnixDomainSocketConnection):
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
        # What a replica refuses has done nothing: said once more, it reaches the master.
        again = {"retry": Retry(NoBackoff(), 1, supported_errors=(Replica,))} if where.moves else {}
        arguments = connection_arguments(where, **again)
        pool = redis.ConnectionPool(connection_class=where.connection_class, protocol=2, **arguments)
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
    if isinstance(error, Replica) or is_read_only(error):
        return BrokerError(
            f"Redis at {address} is a read-only replica", hint="name its master, or all of its set with ; between them"
        )
    if isinstance(error, ResponseError):
        hint = "its databases are fewer than that: name a smaller number" if "DB index" in reason else ""
        return BrokerError(f"Redis at {address} answered with an error", why=reason, hint=hint)
    return BrokerError(
        f"cannot reach Redis at {address}",
        why=plain_reason(error),
        hint="is Redis running there? check broker_url",
    )
