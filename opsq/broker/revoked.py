"""What was revoked: ids of tasks and stamps, kept in Redis, so that workers that were down know it afterwards.

A message itself is left where it is: whoever takes it sees that it was revoked. Only what lies in a delayed set is made
due at once, and what waits for its limits is put at the head of its queue, so that nobody who waits for it waits until
then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from opsq.broker.broker import LUA
from opsq.broker.lanes import lanes
from opsq.broker.limits import LANE
from opsq.datastore import keys
from opsq.datastore.scripts import Script

if TYPE_CHECKING:
    import redis

REVOKE = Script(LUA / "revoke.lua")
HASTEN = Script(LUA / "hasten.lua", LANE)

#: Messages of a delayed set or a lane that are looked at in one step, and at most (the next ones).
_AT_ONCE, _MOST_LOOKED_AT = 500, 100_000

#: What a stamp begins with, and no id does.
_STAMP = b"["

Stamp = tuple[str, Any]


def revoke(server: redis.Redis, key_prefix: str, ids: Iterable[str]) -> list[str]:
    """Remember ids; those that were new."""
    queues = _queues(server, key_prefix)
    new = _add(server, key_prefix, queues, list(ids))
    _hasten(server, key_prefix, queues, new, ())
    return new


def revoke_stamps(server: redis.Redis, key_prefix: str, headers: Mapping[str, Any]) -> None:
    """Remember stamps: tasks that carry one of these values under one of these headers are not to run."""
    queues = _queues(server, key_prefix)
    stamps = list(stamps_of(headers))
    new = set(_add(server, key_prefix, queues, [stamp_text(*stamp) for stamp in stamps]))
    _hasten(server, key_prefix, queues, (), [stamp for stamp in stamps if stamp_text(*stamp) in new])


def ids(server: redis.Redis, key_prefix: str) -> list[str]:
    """All revoked ids, those that are forgotten first first."""
    found = cast("list[bytes]", server.zrange(key_prefix + keys.REVOKED, 0, -1))
    return [each.decode() for each in found if not each.startswith(_STAMP)]


def is_revoked(server: redis.Redis, key_prefix: str, task_id: str) -> bool:
    """Whether this very id was revoked."""
    if task_id.startswith(_STAMP.decode()):
        return False
    return server.zscore(key_prefix + keys.REVOKED, task_id) is not None


def stamps_of(headers: Mapping[str, Any]) -> Iterable[Stamp]:
    """Each header with each of its values."""
    for header, values in headers.items():
        for value in values if isinstance(values, list | tuple | set | frozenset) else (values,):
            yield header, value


def stamp_text(header: str, value: Any) -> str:
    """A stamp as it is remembered."""
    return json.dumps([header, value], sort_keys=True, default=repr)


def _queues(server: redis.Redis, key_prefix: str) -> list[str]:
    return sorted(name.decode() for name in cast("set[bytes]", server.smembers(key_prefix + keys.QUEUES)))


def _add(server: redis.Redis, key_prefix: str, queues: Sequence[str], members: Sequence[str]) -> list[str]:
    key, delayed = key_prefix + keys.REVOKED, [key_prefix + keys.delayed(name) for name in queues]
    new: list[str] = []
    for at in range(0, len(members), _AT_ONCE):
        arguments = [keys.REVOKED_S * 1000, keys.REVOKED_CAP, len(delayed), *delayed, *members[at : at + _AT_ONCE]]
        new += (each.decode() for each in REVOKE.run(server, [key], arguments))
    return new


def _hasten(
    server: redis.Redis, key_prefix: str, queues: Sequence[str], ids: Sequence[str], stamps: Sequence[Stamp]
) -> None:
    if not ids and not stamps:
        return
    wanted = [len(ids), *ids, *(json.dumps(part) for stamp in stamps for part in stamp)]
    places = [[key_prefix + keys.delayed(name)] for name in queues]
    for lane in lanes(server, key_prefix, queues):
        places += [[*ends, lane.facts] for ends in zip(lane.lists, lane.targets, strict=True)]
    for place in places:
        passed = looked_at = 0
        while looked_at < _MOST_LOOKED_AT:
            found, seen = HASTEN.run(server, place, [passed, _AT_ONCE, *wanted])
            looked_at += seen
            passed += seen if len(place) == 1 else seen - found  # what was found is in its lane no more
            if seen < _AT_ONCE:
                break
