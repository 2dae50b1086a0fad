"""Results in Redis, under Celery's keys and announced on Celery's channels."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, suppress
from typing import Any

from opsq import states
from opsq.backends.base import Format, encode_meta
from opsq.backends.chords import Chords
from opsq.backends.records import Records
from opsq.backends.waiting_in_loops import LoopSubscriber
from opsq.datastore import keys
from opsq.datastore.connection import client, errors, parse_url
from opsq.datastore.trouble import WatchError
from opsq.exceptions import OpsqError, TimeoutError


class RedisBackend(Records):
    """The results of one app. `key_prefix` stands before Celery's keys."""

    def __init__(self, url: str, wanted: Format, key_prefix: str = "", chords: Chords | None = None) -> None:
        parse_url(url)
        super().__init__(url, wanted, key_prefix, chords or Chords(url, wanted, key_prefix))
        self._subscriber = LoopSubscriber(url)

    @classmethod
    def of(cls, url: str, conf: Mapping[str, Any]) -> RedisBackend:
        """As the settings of an app say."""
        prefix = keys.prefix_of(conf["result_backend_transport_options"])
        if prefix and prefix[-1] not in ":_-.":
            prefix += "_"
        wanted = Format.of(conf)
        return cls(url, wanted, prefix, Chords.of(url, wanted, prefix, conf))

    @property
    def client(self) -> Any:
        """The server that keeps the results, for what a program keeps there itself: a `redis.Redis`."""
        return client(self.url)

    # -- writing -------------------------------------------------------------------------------------------------------

    def store(self, task_id: str, state: str, result: Any, traceback: str | None = None, request: Any = None) -> None:
        """Store a state and tell those who wait; a stored success stays, whoever stores what at the same time."""
        data = encode_meta(self.format, task_id, state, result, traceback, request)
        ttl_s = self.format.failure_ttl_s if state == states.FAILURE else self.format.ttl_s
        key = self.key(task_id)
        with errors(self.url), client(self.url).pipeline(transaction=True) as pipe:
            while True:
                pipe.watch(key)  # type: ignore[no-untyped-call]
                before: Any = pipe.get(key)
                if before and self.format.decode(before)["status"] == states.SUCCESS:
                    return
                pipe.multi()
                pipe.set(key, data, ex=ttl_s or None)
                pipe.publish(key, data)
                try:
                    pipe.execute()
                    return
                except WatchError:  # something else was stored meanwhile
                    continue

    def store_records(self, records: Iterable[tuple[str, int, bytes]]) -> None:
        """Store key, seconds to live, record of each, and tell those who wait."""
        with errors(self.url):
            pipe = client(self.url).pipeline(transaction=True)
            for key, ttl_s, data in records:
                pipe.set(key, data, ex=ttl_s or None)
                pipe.publish(key, data)
            pipe.execute()

    def forget(self, task_id: str) -> None:
        """Remove a result."""
        with errors(self.url):
            client(self.url).delete(self.key(task_id))

    # -- reading -------------------------------------------------------------------------------------------------------

    def _read(self, task_id: str) -> dict[str, Any]:
        with errors(self.url):
            data: Any = client(self.url).get(self.key(task_id))
        return self.format.decode(data) if data else {}

    def get_meta(self, task_id: str) -> dict[str, Any]:
        """What is known of a task; PENDING when nothing is. Raises DecodeError."""
        return self._read(task_id) or {"status": states.PENDING, "result": None, "task_id": task_id}

    def get_metas(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What is known of several tasks, by id; nothing of those of which nothing is known, or that cannot be read."""
        with errors(self.url):
            records: Any = client(self.url).mget([self.key(task_id) for task_id in ids]) if ids else ()
        found = {}
        for task_id, data in zip(ids, records, strict=True):
            with suppress(OpsqError):
                if data:
                    found[task_id] = self.format.decode(data)
        return found

    def exists(self, task_id: str) -> bool:
        """Whether anything is stored for a task."""
        with errors(self.url):
            return bool(client(self.url).exists(self.key(task_id)))

    def stored(self, limit: int = 0) -> tuple[list[tuple[str, dict[str, Any]]], bool]:
        """Id and record of results that are stored, in no order (0 = all), and whether there are more."""
        found: list[tuple[str, dict[str, Any]]] = []
        start = self.key("")
        with errors(self.url):
            for key in client(self.url).scan_iter(match=f"{keys.as_pattern(start)}*", count=1000):
                if limit and len(found) == limit:
                    return found, True
                task_id = key.decode(errors="replace").removeprefix(start)
                if meta := self._read(task_id):
                    found.append((task_id, meta))
        return found, False

    def wait_each(
        self,
        ids: Sequence[str],
        timeout_s: float | None = None,
        on_message: Callable[[dict[str, Any]], None] | None = None,
        on_interval: Callable[[], None] | None = None,
        interval_s: float = 0.5,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Id of each that has ended, as it ends, and what is known of it. Raises TimeoutError."""
        left = {self.key(task_id).encode(): task_id for task_id in ids}
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with closing(self._subscriber.updates(tuple(left), until, interval_s)) as updates:
            for key, data in updates:
                if not key:
                    if on_interval is not None:
                        on_interval()
                    continue
                meta = self.format.decode(data)
                if on_message is not None:
                    on_message(meta)
                if meta["status"] in states.READY_STATES and key in left:
                    yield left.pop(key), meta
                    if not left:
                        return
        raise self._too_late(list(left.values()))

    async def await_one(
        self,
        task_id: str,
        timeout_s: float | None = None,
        on_interval: Callable[[], Awaitable[None]] | None = None,
        interval_s: float = 0.5,
    ) -> dict[str, Any]:
        """What is known of one that has ended, awaited in an event loop. Raises TimeoutError."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        keys = (self.key(task_id).encode(),)
        async with aclosing(self._subscriber.updates_in_loop(keys, until, interval_s)) as updates:
            async for key, data in updates:
                if key:
                    meta = self.format.decode(data)
                    if meta["status"] in states.READY_STATES:
                        return meta
                elif on_interval is not None:
                    await on_interval()
        raise self._too_late([task_id])

    def _too_late(self, missing: Sequence[str]) -> TimeoutError:
        what = f"the result of {missing[0]}" if len(missing) == 1 else f"{len(missing)} results"
        why = f"Redis at {parse_url(self.url).address} cannot be reached" if self._subscriber.away else ""
        return TimeoutError(f"{what} did not come in time", why=why)
