"""redis-py, where its knowledge is needed: TLS, options in URLs, several servers, Sentinels, and pooled clients.

Importing it takes longer than the start of a worker, so nothing imports this module before it is needed. Its errors
leave here as ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.connection import parse_url as parse_redis_url
from redis.retry import Retry

from opsq.config.urls import joined
from opsq.datastore.link import CONNECT_TIMEOUT_S, KEEPALIVE, REPLY_TIMEOUT_S
from opsq.datastore.seeking import SEEKING, Replica, Sentinels, Several, as_ours, sentinel_link
from opsq.datastore.seeking import address as place_address
from opsq.datastore.url import RedisURL, check_port, database, masked, plain_url
from opsq.exceptions import ImproperlyConfigured

_SENTINEL_PORT = 26379
#: How long an answer may take where there is another server to go to (seconds).
REPLY_TIMEOUT_OF_SEVERAL_S = 5.0

_CLASSES: Mapping[str, type[Any]] = {
    "tcp": redis.Connection,
    "tls": redis.SSLConnection,
    "unix": redis.UnixDomainSocketConnection,
}


# -- URLs --------------------------------------------------------------------------------------------------------------


def parse(url: str, urls: Sequence[str]) -> RedisURL:
    """Read a URL that is not plain; `urls`: each of those in it. Raises ImproperlyConfigured, ValueError, TypeError."""
    if any(urlsplit(each).scheme == "sentinel" for each in urls):
        return _of_sentinels(url, urls)
    found = [_one_server(each) for each in urls]
    return found[0] if len(found) == 1 else _several(url, found)


def _one_server(url: str) -> RedisURL:
    plain = plain_url(url)
    if plain is not None:
        return plain
    parts = urlsplit(url)
    if parts.scheme == "redis+socket":
        return _socket_url(url, parts)
    check_port(parts)
    arguments: dict[str, Any] = dict(parse_redis_url(_with_plain_ssl_words(url)))  # type: ignore[no-untyped-call]
    tls = arguments.pop("connection_class", redis.Connection) is redis.SSLConnection
    arguments["db"] = db = int(arguments.get("db") or 0)
    if "path" in arguments:
        return RedisURL(url, arguments["path"], db, "unix", arguments)
    database(parts)
    arguments.setdefault("host", "localhost")
    arguments.setdefault("port", 6379)
    kind: Literal["tcp", "tls"] = "tls" if tls else "tcp"
    return RedisURL(url, f"{arguments['host']}:{arguments['port']}", db, kind, arguments)


def _socket_url(url: str, parts: SplitResult) -> RedisURL:
    """kombu's form, with options of redis-py's besides."""
    query = dict(parse_qsl(parts.query))
    db = int(query.pop("virtual_host", "") or query.pop("db", "0"))
    as_unix = joined(parts._replace(scheme="unix", query=urlencode(query)))
    arguments = {**parse_redis_url(as_unix), "db": db}  # type: ignore[no-untyped-call]
    arguments.pop("connection_class", None)
    return RedisURL(url, arguments["path"], db, "unix", arguments)


def _several(url: str, found: Sequence[RedisURL]) -> RedisURL:
    """Servers of one replicated set: they differ in place and login only."""
    first = found[0]
    if len({(each.db, each.kind) for each in found}) > 1:
        raise ImproperlyConfigured(
            f"cannot use {masked(url)!r}",
            why="several servers must be copies of one: of the same kind, with the same database",
        )
    places = [{"username": None, "password": None, **_picked(each.arguments, _PLACE)} for each in found]
    arguments = {**first.arguments, "finder": Several(places)}
    names = " or ".join(each.address for each in found)
    return RedisURL(url, names, first.db, first.kind, arguments, moves=True)


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
    open_link = sentinel_link(_CLASSES[sentinel.kind], {**sentinel.arguments, "db": 0})
    names = ", ".join(map(place_address, places))
    arguments = {**server.arguments, "finder": Sentinels(places, master, open_link)}
    address = f"{master} (of the Sentinels {names})"
    return RedisURL(url, address, server.db, server.kind, arguments, moves=True)


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


# -- connections -------------------------------------------------------------------------------------------------------


def _connection_class(where: RedisURL) -> type[Any]:
    found = _CLASSES[where.kind]
    return SEEKING[found] if where.moves else found


def _arguments(where: RedisURL, **options: Any) -> dict[str, Any]:
    """redis-py's arguments for a connection to a server: keepalive, time-outs (seconds), no retry by itself."""
    arguments: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": REPLY_TIMEOUT_OF_SEVERAL_S if where.moves else REPLY_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        **where.arguments,
        **options,
    }
    if where.kind != "unix":
        arguments.setdefault("socket_keepalive", True)
        arguments.setdefault("socket_keepalive_options", KEEPALIVE)
    return arguments


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise as_ours(error) from error


class FoundLink:
    """A link that redis-py makes."""

    def __init__(self, where: RedisURL, reply_s: float | None, protocol: int) -> None:
        options = {} if reply_s is None else {"socket_timeout": reply_s}
        self._connection = _connection_class(where)(**_arguments(where, protocol=protocol, **options))

    @property
    def sock(self) -> Any:
        """The socket; None while not connected."""
        return self._connection._sock

    def connect(self) -> None:
        """Find the server, connect, log in, choose the database. Raises RedisError."""
        with _ours():
            self._connection.connect()

    def disconnect(self) -> None:
        """Let go of it."""
        self._connection.disconnect()


class Client(redis.Redis):
    """redis-py's client; its errors are ours."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """A command and its answer."""
        with _ours():
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Commands that are sent together."""
        return _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _Pipeline(Pipeline):
    def execute(self, raise_on_error: bool = True) -> list[Any]:
        with _ours():
            return super().execute(raise_on_error)

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        with _ours():
            return super().immediate_execute_command(*args, **options)  # type: ignore[no-untyped-call]


_clients: dict[tuple[int, str], Client] = {}


def client(where: RedisURL) -> Client:
    """The pooled client of a URL in this process; made anew after a fork."""
    key = (os.getpid(), where.url)
    found = _clients.get(key)
    if found is None:
        # What a replica refuses has done nothing: said once more, it reaches the master.
        again = {"retry": Retry(NoBackoff(), 1, supported_errors=(Replica,))} if where.moves else {}
        arguments = _arguments(where, **again)
        pool = redis.ConnectionPool(connection_class=_connection_class(where), protocol=2, **arguments)
        found = _clients[key] = Client(connection_pool=pool)
    return found
