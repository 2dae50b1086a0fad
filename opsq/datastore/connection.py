"""Redis by URL: what a URL means, pooled clients (one a process and URL), and errors in the user's words.

Nothing here retries a command by itself: only the caller knows whether sending it twice is harmless.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opsq.datastore.link import Link, PlainLink
from opsq.datastore.trouble import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
    Replica,
    ResponseError,
    is_read_only,
    plain_reason,
)
from opsq.datastore.url import RedisURL, each_url, masked, plain_url
from opsq.exceptions import BrokerError, ImproperlyConfigured, RefusedError

if TYPE_CHECKING:
    from opsq.datastore.redis_py import Client

SCHEMES = ("redis", "rediss", "redis+socket", "unix", "sentinel")


def parse_url(url: str) -> RedisURL:
    """Read a URL, or several of one replicated set with `;` between them. Raises ImproperlyConfigured.

    `redis://`, `rediss://`, `redis+socket://`, `unix://`, and `sentinel://` with the master's name in the first one's
    query (`?master_name=NAME`); login, database and options of the master stand in that first one too, as for Celery.
    """
    try:
        found = plain_url(url)
        if found is not None:
            return found
        urls = each_url(url)
        for each in urls:
            if urlsplit(each).scheme not in SCHEMES:
                raise ImproperlyConfigured(
                    f"cannot use {masked(each)!r}",
                    why="opsq speaks to Redis only",
                    hint="use a URL that begins with redis://, rediss://, redis+socket:// or sentinel://",
                )
        from opsq.datastore import redis_py

        return redis_py.parse(url, urls)
    except (ValueError, TypeError) as error:
        raise ImproperlyConfigured(f"cannot read the Redis URL {masked(url)!r}", why=str(error)) from None


def link(where: RedisURL, reply_s: float | None, protocol: int) -> Link:
    """A connection of its own, not yet connected. `reply_s`: how long an answer may take (seconds), None = as long as
    the URL lets it; `protocol`: of RESP, 2 or 3.
    """
    if where.plain:
        return PlainLink(where, reply_s, protocol)
    from opsq.datastore.redis_py import FoundLink

    return FoundLink(where, reply_s, protocol)


def client(url: str) -> Client:
    """A pooled client (RESP2, bytes in and out), one for each URL in this process; made anew after a fork."""
    from opsq.datastore import redis_py

    return redis_py.client(parse_url(url))


@contextmanager
def errors(url: str) -> Iterator[None]:
    """Turn a server's errors into the user's: which server, why, and what to do."""
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
