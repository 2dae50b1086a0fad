"""What Celery's workers on the same queues took and never acknowledged: kombu's store `unacked`.

They are put back as Celery's own processes would, after this app's `visibility_timeout` and never sooner. Ours are in
no such store: a Celery process that restores cannot touch them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opsq.broker.broker import LUA
from opsq.datastore import keys
from opsq.datastore.line import Line
from opsq.datastore.priorities import Priorities
from opsq.datastore.scripts import Script
from opsq.protocol.routing import BROADCAST, read_bindings

RESTORE = Script(LUA / "restore_celery.lua")

#: Entries read in one step, and looked at in one go at most.
AT_ONCE, MOST = 100, 10_000
#: kombu's default (seconds).
VISIBILITY_TIMEOUT_S = 3600.0


class Leftovers:
    """Those of some queues. `options`: `broker_transport_options`."""

    def __init__(self, queues: Sequence[str], key_prefix: str, options: Mapping[str, Any]) -> None:
        self.timeout_s = float(options.get("visibility_timeout") or VISIBILITY_TIMEOUT_S)
        self._queues, self._prefix, self._priorities = list(queues), key_prefix, Priorities.of(options)
        names = [("unacked_key", keys.UNACKED), ("unacked_index_key", keys.UNACKED_INDEX)]
        names.append(("unacked_mutex_key", keys.UNACKED_MUTEX))
        self._keys = [key_prefix + str(options.get(option) or name) for option, name in names]

    def restore(self, line: Line) -> int:
        """Put back what is due, the oldest last and so next; returns how many messages. Raises RedisError."""
        restored = passed = 0
        latest = int(line.ask("TIME")[0]) - self.timeout_s
        while passed < MOST:
            tags: Any = line.ask("ZREVRANGEBYSCORE", self._keys[1], latest, "-inf", "LIMIT", passed, AT_ONCE)
            if not tags:
                break
            arguments = [word for words in self._due(line, tags) for word in words]
            answer: Any = RESTORE.ask(line.ask, self._keys, [self.timeout_s, *arguments]) if arguments else 0
            if answer == b"held":
                break
            restored += answer
            passed += len(tags) - answer
        return restored

    def _due(self, line: Line, tags: Sequence[bytes]) -> Iterator[tuple[bytes, bytes, str, bytes]]:
        """(tag, entry, list, message) of those that belong to one of our queues."""
        entries: Any = line.ask("HMGET", self._keys[0], *tags)
        for tag, entry in zip(tags, entries, strict=True):
            try:
                message, exchange, routing_key = json.loads(entry)
                queue = self._queue_of(line, str(exchange), str(routing_key))
                if queue is not None:
                    yield tag, entry, self._list_of(queue, message), json.dumps(_redelivered(message)).encode()
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # no entry of kombu's: it stays as it is

    def _queue_of(self, line: Line, exchange: str, routing_key: str) -> str | None:
        """Our queue that a message with this address came from, by kombu's bindings."""
        if not exchange:
            return routing_key if routing_key in self._queues else None
        bound: Any = line.ask("SMEMBERS", self._prefix + keys.binding(exchange))
        for each in read_bindings(bound, self._priorities.separator):
            # A copy of a broadcast is its worker's alone.
            if each.queue in self._queues and each.takes(routing_key) and not each.queue.startswith(BROADCAST):
                return each.queue
        return next((name for name in (routing_key, exchange) if not bound and name in self._queues), None)

    def _list_of(self, queue: str, message: dict[str, Any]) -> str:
        priority = int(message["properties"].get("priority") or 0)
        return self._prefix + self._priorities.list_of(queue, priority)


def _redelivered(message: dict[str, Any]) -> dict[str, Any]:
    """The message with the marks that kombu puts on it."""
    message["headers"]["redelivered"] = True
    message["properties"].setdefault("delivery_info", {})["redelivered"] = True
    return message
