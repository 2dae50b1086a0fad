"""Results in a place of a program's own that keeps bytes under keys: a file system, a database, a cache."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from opsq import states
from opsq.backends.base import Format, encode_meta
from opsq.backends.chords import Chords
from opsq.backends.records import Records
from opsq.exceptions import ImproperlyConfigured, TimeoutError

logger = logging.getLogger("opsq.backends")

#: Between two looks for a result that is waited for (seconds): the first one, the longest.
LOOK_S = (0.01, 0.5)


class KeyValueBackend(Records):
    """To be subclassed: `get`, `set` and `delete` are to be written (`result_backend = "module:Class"`).

    Whoever waits looks again and again. The counters of chords stay at the broker.
    """

    def __init__(self, app: Any) -> None:
        conf, wanted = app.conf, Format.of(app.conf)
        chords = Chords.of(app.find_broker().url, wanted, "", conf)
        super().__init__(f"{type(self).__module__}:{type(self).__qualname__}", wanted, "", chords)
        self.app = app

    def get(self, key: str) -> bytes | None:
        """What is kept under a key."""
        raise NotImplementedError

    def set(self, key: str, data: bytes, ttl_s: int) -> None:
        """Keep it for so long (seconds, 0 = for ever), in place of what was there; the same may come again."""
        raise NotImplementedError

    def delete(self, key: str) -> None:
        """Keep it no more; it need not be there."""
        raise NotImplementedError

    # -- what follows from these --------------------------------------------------------------------------------------

    def store(self, task_id: str, state: str, result: Any, traceback: str | None = None, request: Any = None) -> None:
        """Store a state; a stored success stays."""
        if self.get_meta(task_id)["status"] == states.SUCCESS:
            return
        ttl_s = self.format.failure_ttl_s if state == states.FAILURE else self.ttl_s
        self.set(self.key(task_id), encode_meta(self.format, task_id, state, result, traceback, request), ttl_s)

    def store_records(self, records: Iterable[tuple[str, int, bytes]]) -> None:
        """Store key, seconds to live, record of each. Raises ConnectionError: a worker waits and tries again."""
        for key, ttl_s, data in records:
            try:
                self.set(key, data, ttl_s)
            except OSError:
                raise
            except Exception as error:
                raise ConnectionError(f"{self.url} cannot keep a result: {error!r}") from error

    def forget(self, task_id: str) -> None:
        """Remove a result."""
        self.delete(self.key(task_id))

    def get_meta(self, task_id: str) -> dict[str, Any]:
        """What is known of a task; PENDING when nothing is. Raises DecodeError."""
        data = self.get(self.key(task_id))
        return self.format.decode(data) if data else {"status": states.PENDING, "result": None, "task_id": task_id}

    def get_metas(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What is known of several tasks, by id; nothing of those of which nothing is known."""
        found = {task_id: self.get_meta(task_id) for task_id in ids}
        return {task_id: meta for task_id, meta in found.items() if meta["status"] != states.PENDING}

    def exists(self, task_id: str) -> bool:
        """Whether anything is stored for a task."""
        return self.get(self.key(task_id)) is not None

    def stored(self, limit: int = 0) -> tuple[list[tuple[str, dict[str, Any]]], bool]:  # noqa: ARG002
        """Nobody can list what is kept there."""
        return [], False

    def wait_each(
        self,
        ids: Sequence[str],
        timeout_s: float | None = None,
        on_message: Callable[[dict[str, Any]], None] | None = None,
        on_interval: Callable[[], None] | None = None,
        interval_s: float = 0.5,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Id of each that has ended, as it ends, and what is known of it. Raises TimeoutError."""
        left, pause_s = list(dict.fromkeys(ids)), LOOK_S[0]
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            for task_id in list(left):
                meta = self.get_meta(task_id)
                if meta["status"] in states.READY_STATES:
                    if on_message is not None:
                        on_message(meta)
                    left.remove(task_id)
                    pause_s = LOOK_S[0]
                    yield task_id, meta
            if not left:
                return
            if until is not None and time.monotonic() >= until:
                raise TimeoutError(f"the result of {left[0]} did not come in time")
            if on_interval is not None:
                on_interval()
            time.sleep(min(pause_s, interval_s, max(until - time.monotonic(), 0.0) if until else pause_s))
            pause_s = min(pause_s * 2, LOOK_S[1])


def of_a_program(name: str, app: Any) -> KeyValueBackend:
    """The one that `result_backend = "module:Class"` names. Raises ImproperlyConfigured."""
    module, _, kind = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError) as error:
        raise ImproperlyConfigured(f"cannot use {name!r} as result backend", why=str(error)) from error
    if not (isinstance(found, type) and issubclass(found, KeyValueBackend)):
        why = "it is no subclass of opsq.backends.keyvalue.KeyValueBackend"
        raise ImproperlyConfigured(f"cannot use {name!r} as result backend", why=why)
    return found(app)
