"""Results in a place of a program's own that keeps bytes under keys: a file system, a database, a cache."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from opsq import states
from opsq.backends.base import Format, encode_meta
from opsq.backends.polled import Polled


class KeyValueBackend(Polled):
    """To be subclassed: `get`, `set` and `delete` are to be written (`result_backend = "module:Class"`)."""

    def __init__(self, app: Any) -> None:
        super().__init__(app, f"{type(self).__module__}:{type(self).__qualname__}", Format.of(app.conf))

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
        for key, ttl_s, data in self.chords.keep(records):
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
