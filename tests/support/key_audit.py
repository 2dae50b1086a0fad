"""Compares the keys in a database with the table of keys: unknown ones, and ones that lack their time to live."""

from __future__ import annotations

import re
from collections.abc import Sequence

import redis

from opsq.datastore import keys
from support.redis_server import RedisServer


def _pattern(fact: keys.KeyFact) -> re.Pattern[str]:
    text = re.escape(fact.pattern.replace("\\x06\\x16", keys.PRIORITY_SEPARATOR))
    return re.compile(re.sub(r"<[^<>]*>", ".+", text), re.DOTALL)


_OF_QUEUES = [_pattern(fact) for fact in keys.TABLE if fact.pattern.startswith("<queue>")]
_OTHERS = [(_pattern(fact), fact) for fact in keys.TABLE if not fact.pattern.startswith("<queue>")]
#: A list with any name is a queue, but not one that looks as if it were ours or Celery's.
_RESERVED = ("opsq:", "celery-task", "_kombu", "unacked")


def of_server(server: RedisServer, foreign_keys: Sequence[str] = ()) -> list[str]:
    """The problems of all databases."""
    found = []
    for db in range(16):
        with server.client(db) as client:
            found += problems(client, foreign_keys)
    return found


def problems(client: redis.Redis, foreign_keys: Sequence[str] = ()) -> list[str]:
    """One sentence for each key that should not be there as it is."""
    found = []
    for raw in client.scan_iter(count=1000):
        key = raw.decode(errors="surrogateescape")
        if not any(re.fullmatch(pattern, key, re.DOTALL) for pattern in foreign_keys):
            found.append(_problem(client, raw, key))
    return [problem for problem in found if problem]


def _problem(client: redis.Redis, raw: bytes, key: str) -> str:
    fact = next((fact for pattern, fact in _OTHERS if pattern.fullmatch(key)), None)
    if fact is not None:
        if fact.needs_ttl and client.pttl(raw) == -1:
            return f"{key!r} has no time to live"
        return ""
    is_queue = client.type(raw) in (b"list", b"none") and not key.startswith(_RESERVED)
    if is_queue and any(pattern.fullmatch(key) for pattern in _OF_QUEUES):
        return ""
    return f"{key!r} is not in the table of keys"
