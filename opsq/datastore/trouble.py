"""What a server, or the way to it, may answer with: one class for each kind, whoever speaks to it.

They are not redis-py's: importing those takes longer than the start of a worker, and must not be left to the moment of
trouble. `datastore/redis_py.py` turns that library's errors into these.
"""

from __future__ import annotations

import socket

from opsq.exceptions import BrokerError, RefusedError


class RedisError(Exception):
    """The root."""


class RedisConnectionError(RedisError):
    """The server cannot be reached, or does not let us in."""


class RedisTimeoutError(RedisError):
    """No answer in time."""


class AuthenticationError(RedisConnectionError):
    """It does not know this user, or the password is another."""


class BusyLoadingError(RedisConnectionError):
    """It is still reading its data."""


class Replica(RedisConnectionError):
    """The server takes no writes: it is, or has become, a replica."""

    def __init__(self, text: str = "it is a read-only replica") -> None:
        super().__init__(text)


class NoRedis(RedisConnectionError):
    """What answers does not speak Redis' protocol."""

    def __init__(self, _text: str = "") -> None:
        super().__init__("what answers there is no Redis")


class NoneOfThem(RedisConnectionError):
    """No server was found; says why of each that was tried."""


class WatchError(RedisError):
    """What a transaction looked at has changed meanwhile."""


class ResponseError(RedisError):
    """The server refuses a command."""


class NoScriptError(ResponseError):
    """It does not know this script, or no more."""


class NoPermissionError(ResponseError):
    """This user may not do that."""


class ReadOnlyError(ResponseError):
    """It is a replica."""


class MasterDownError(ResponseError):
    """It is a replica whose master is away."""


class TryAgainError(ResponseError):
    """Not now."""


class OutOfMemoryError(ResponseError):
    """Its memory is used up, and it may drop nothing."""


class NotKeptError(ResponseError):
    """Where results are kept, this one never can be: it is not the place that is in trouble."""


#: All that trouble with a server raises: these, the system's, and ours that are made of them.
TROUBLE = (RedisError, OSError, BrokerError, RefusedError)

#: Kinds of answers by their first word, which is left out of the text.
_BY_WORD: dict[str, type[RedisError]] = {
    "OOM": OutOfMemoryError,
    "WRONGPASS": AuthenticationError,
    "NOAUTH": AuthenticationError,
    "LOADING": BusyLoadingError,
    "NOSCRIPT": NoScriptError,
    "READONLY": ReadOnlyError,
    "NOPERM": NoPermissionError,
    "TRYAGAIN": TryAgainError,
    "MASTERDOWN": MasterDownError,
    "EXECABORT": ResponseError,
}
_IN_OTHER_WORDS: dict[str, type[RedisError]] = {
    "max number of clients reached": RedisConnectionError,
    "invalid password": AuthenticationError,
}


def of_answer(text: str) -> RedisError:
    """The error that a server's answer is."""
    word, _, rest = text.partition(" ")
    if word == "ERR":
        return _IN_OTHER_WORDS.get(rest, ResponseError)(rest)
    kind = _BY_WORD.get(word)
    return ResponseError(text) if kind is None else kind(rest)


def is_read_only(error: BaseException) -> bool:
    """Whether a server says that it is a replica; servers before 7.0 say it of a script in other words."""
    return isinstance(error, ReadOnlyError) or (isinstance(error, ResponseError) and "-READONLY " in str(error))


def plain_reason(error: BaseException) -> str:
    """Why, in the operating system's words without numbers and addresses."""
    if isinstance(error, NoneOfThem | Replica):
        return str(error)
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, socket.gaierror):
            return "the host name is not known"
        if isinstance(seen, TimeoutError | RedisTimeoutError):
            return "no answer in time"
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror.lower()
        seen = seen.__cause__ or seen.__context__
    return str(error).strip() or type(error).__name__
