"""redis-py's connections that look for their server each time they connect: the first of several that is no replica,
or the master that Sentinels name. So whoever reconnects after an error has followed the failover.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from opsq.datastore import trouble
from opsq.datastore.trouble import plain_reason

#: How long one of several servers may take to greet, and a Sentinel for all it is asked (seconds).
GREETING_S = 2.0
SENTINEL_S = 1.0

#: A server: the attributes of redis-py's connection that say where it is and who logs in.
Place = Mapping[str, Any]


class Replica(RedisConnectionError):
    """The server takes no writes: it is, or has become, a replica."""


class NoneOfThem(RedisConnectionError):
    """No server was found; says why of each that was tried."""


#: redis-py's errors by name, and those of this file -> ours.
_OURS: Mapping[str, type[trouble.RedisError]] = {
    "ConnectionError": trouble.RedisConnectionError,
    "TimeoutError": trouble.RedisTimeoutError,
    **{
        kind.__name__: kind
        for kind in (
            trouble.RedisError,
            trouble.AuthenticationError,
            trouble.BusyLoadingError,
            trouble.Replica,
            trouble.NoneOfThem,
            trouble.WatchError,
            trouble.ResponseError,
            trouble.NoScriptError,
            trouble.NoPermissionError,
            trouble.ReadOnlyError,
            trouble.MasterDownError,
            trouble.TryAgainError,
            trouble.OutOfMemoryError,
        )
    },
}


def as_ours(error: RedisError) -> trouble.RedisError:
    """An error of redis-py as the nearest of ours, with its text. It is both: programs catch redis-py's."""
    theirs = type(error)
    both = _both.get(theirs)
    if both is None:
        ours = next(_OURS[each.__name__] for each in theirs.__mro__ if each.__name__ in _OURS)
        both = _both[theirs] = type(theirs.__name__, (ours, theirs), {})
    return both(str(error))


_both: dict[type[RedisError], type[trouble.RedisError]] = {}


class Finder(Protocol):
    """Tells where the server may be."""

    def places(self, tried: list[str]) -> Iterator[Place]:
        """Places to try, the likeliest first; what goes wrong in asking is added to `tried`."""
        ...


class Several:
    """Servers of one replicated set, tried in the order in which they are named."""

    def __init__(self, servers: Sequence[Place]) -> None:
        self._servers = servers

    def places(self, tried: list[str]) -> Iterator[Place]:  # noqa: ARG002
        """All of them."""
        yield from self._servers


class Sentinels:
    """Sentinels that watch a master; `open_link(place)` makes a connection to one."""

    def __init__(self, sentinels: Sequence[Place], master: str, open_link: Callable[[Place], Any]) -> None:
        self._sentinels, self._master, self._open_link = list(sentinels), master, open_link

    def places(self, tried: list[str]) -> Iterator[Place]:
        """Where they say the master is: one that was cut off may still name the old one, so all are heard if need be.

        Whoever does not answer is asked last from then on.
        """
        told: set[tuple[str, int]] = set()
        for sentinel in list(self._sentinels):
            try:
                place = self._ask(sentinel)
            except (RedisError, OSError) as error:
                tried.append(f"{address(sentinel)}: {_why(error)}")
                self._sentinels.sort(key=lambda each, silent=sentinel: each is silent)  # type: ignore[misc]
                continue
            if place is None:
                tried.append(f"{address(sentinel)}: it does not know {self._master}")
            elif place not in told:
                told.add(place)
                yield {"host": place[0], "port": place[1]}

    def _ask(self, sentinel: Place) -> tuple[str, int] | None:
        link = self._open_link(sentinel)
        try:
            link.connect()
            link.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master, check_health=False)
            answer = link.read_response()
        finally:
            link.disconnect()
        return (answer[0].decode(), int(answer[1])) if answer else None


def sentinel_link(connection_class: type[Any], arguments: Mapping[str, Any]) -> Callable[[Place], Any]:
    """What opens a connection to a Sentinel, with these arguments of redis-py besides its place."""

    def open_link(place: Place) -> Any:
        return connection_class(
            **{
                "socket_connect_timeout": SENTINEL_S,
                "socket_timeout": SENTINEL_S,
                "retry": Retry(NoBackoff(), 0),
                "protocol": 2,
                **arguments,
                **place,
            }
        )

    return open_link


class _Seeking:
    """Before redis-py's own connection: where it goes is asked at each connect."""

    def __init__(self, *, finder: Finder, **arguments: Any) -> None:
        self._finder = finder
        super().__init__(redis_connect_func=_greet, **arguments)  # type: ignore[call-arg]

    def connect(self) -> None:
        """Go to the first place where a master answers. Raises NoneOfThem, or the refusal of a login."""
        connection: Any = self
        if connection._sock:
            return
        tried: list[str] = []
        for place in self._finder.places(tried):
            vars(self).update(place)
            try:
                connect: Any = super().connect  # type: ignore[misc]
                connect()
                return
            except AuthenticationError:
                raise
            except (RedisConnectionError, RedisTimeoutError, OSError) as error:
                tried.append(f"{address(place)}: {_why(error)}")
        raise NoneOfThem("; ".join(tried))

    def send_packed_command(self, *args: Any, **options: Any) -> None:
        """Write; redis-py would connect anew to where it was before."""
        self.connect()
        super().send_packed_command(*args, **options)  # type: ignore[misc]

    def read_response(self, *args: Any, **options: Any) -> Any:
        """An answer; a server that has become a replica is left."""
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except ReadOnlyError:
            connection: Any = self
            connection.disconnect()
            raise Replica("it is a read-only replica") from None


def _greet(connection: Any) -> None:
    """Log in and look at the role, in little time: there are others that can be asked."""
    connection._sock.settimeout(GREETING_S)
    connection.on_connect()
    connection.send_command("ROLE", check_health=False)
    try:
        role = connection.read_response()[0]
    except ResponseError:  # this user may not ask
        role = b"master"
    if role != b"master":
        raise Replica("it is a read-only replica")
    connection._sock.settimeout(connection.socket_timeout)


class _SeekingTCP(_Seeking, redis.Connection):
    pass


class _SeekingTLS(_Seeking, redis.SSLConnection):
    pass


class _SeekingSocket(_Seeking, redis.UnixDomainSocketConnection):
    pass


#: redis-py's connection -> the same one, seeking.
SEEKING: Mapping[type, type[Any]] = {
    redis.Connection: _SeekingTCP,
    redis.SSLConnection: _SeekingTLS,
    redis.UnixDomainSocketConnection: _SeekingSocket,
}


def address(place: Place) -> str:
    """Where a server is, for errors."""
    return str(place["path"]) if "path" in place else f"{place['host']}:{place['port']}"


def _why(error: RedisError | OSError) -> str:
    if isinstance(error, OSError):
        return plain_reason(error)
    ours = as_ours(error)
    ours.__cause__ = error
    return plain_reason(ours)
