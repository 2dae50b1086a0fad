"""Results in Django's cache (`result_backend = "django-cache"`), as django-celery-results keeps them there.

`cache_backend` names the cache of CACHES (default: "default"). The cache itself pickles what it is given.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from opsq.contrib.django.setup import set_up

set_up()  # a program may ask for results before anything else of Django

from django.core.cache import InvalidCacheBackendError, caches  # noqa: E402

from opsq import states  # noqa: E402
from opsq.backends.base import Format, as_exception, encode_meta  # noqa: E402
from opsq.backends.chords import Chords  # noqa: E402
from opsq.backends.polled import Polled  # noqa: E402
from opsq.contrib.django.results_awaited import beside  # noqa: E402
from opsq.datastore import keys  # noqa: E402
from opsq.datastore.connection import client, errors  # noqa: E402
from opsq.datastore.trouble import NotKeptError  # noqa: E402
from opsq.exceptions import BrokerError, DecodeError, ImproperlyConfigured  # noqa: E402
from opsq.protocol import failure  # noqa: E402

PICKLE = "application/x-python-serialize"


class CacheChords(Chords):
    """Chords of which Celery's clients count no parts: they have a task of their own look for the results."""

    def count(self, parts: Sequence[Sequence[Any]]) -> list[str]:
        """Count the parts of those chords that count on it."""
        if not parts:
            return []
        with errors(self.url):
            sizes: Any = client(self.url).mget([f"{part[0]}.s" for part in parts])
        ours = [part for part, size in zip(parts, sizes, strict=True) if size is not None]
        return super().count(ours) if ours else []


class CacheBackend(Polled):
    """The results of one app in a cache of its Django project."""

    beside = staticmethod(beside)

    def __init__(self, app: Any) -> None:
        wanted = Format.of(app.conf)
        name = app.conf.cache_backend
        self._alias = "default" if name in (None, "", "django-cache") else name
        if self._alias not in caches:
            what = f"cannot keep results in the cache {self._alias!r}"
            raise ImproperlyConfigured(what, why="CACHES has none of this name (cache_backend)")
        chords = CacheChords.of(app.find_broker().url, wanted, "", app.conf)
        whatever = replace(wanted, serializer="pickle", accept=frozenset({PICKLE}), compression=None)
        super().__init__(app, "django-cache", whatever, chords)

    @property
    def _cache(self) -> Any:
        try:
            return caches[self._alias]
        except InvalidCacheBackendError as error:
            raise ImproperlyConfigured(f"cannot use the cache {self._alias!r}", why=str(error)) from error

    # -- writing -------------------------------------------------------------------------------------------------------

    def record(self, request: Any, state: str, value: Any, traceback: str | None = None) -> bytes:
        """The bytes to store for a run. Raises EncodeError. Errors as data: nobody else need know their classes."""
        value = failure.to_data(value) if isinstance(value, BaseException) else value
        return encode_meta(self.format, request.id, state, value, traceback, request)

    def store_records(self, records: Iterable[tuple[str, int, bytes]]) -> None:
        """Store key, seconds to live, record of each. Raises BrokerError, NotKeptError."""
        by_life: dict[int, dict[str, Any]] = {}
        for key, ttl_s, data in self.chords.keep(records):
            by_life.setdefault(ttl_s, {})[key] = self.format.decode_plain(data)
        for ttl_s, found in by_life.items():
            self._set(found, ttl_s)

    def _set(self, found: Mapping[str, Any], ttl_s: int) -> None:
        try:
            failed = self._cache.set_many(found, ttl_s or None)
        except (pickle.PicklingError, TypeError, ValueError) as error:
            raise NotKeptError(f"the cache cannot keep a result: {error}") from error
        except Exception as error:  # each cache has errors of its own
            raise BrokerError(f"cannot keep results in the cache {self._alias!r}", why=str(error)) from error
        if failed:
            raise BrokerError(f"cannot keep results in the cache {self._alias!r}", why="it refuses them")

    def store(self, task_id: str, state: str, result: Any, traceback: str | None = None, request: Any = None) -> None:
        """Store a state; a stored success stays."""
        if self.get_meta(task_id)["status"] == states.SUCCESS:
            return
        result = failure.to_data(result) if isinstance(result, BaseException) else result
        data = encode_meta(self.format, task_id, state, result, traceback, request)
        ttl_s = self.format.failure_ttl_s if state == states.FAILURE else self.ttl_s
        self._set({self.key(task_id): self.format.decode_plain(data)}, ttl_s)

    def forget(self, task_id: str) -> None:
        """Remove a result."""
        self._cache.delete(self.key(task_id))

    # -- reading -------------------------------------------------------------------------------------------------------

    def get_meta(self, task_id: str) -> dict[str, Any]:
        """What is known of a task; PENDING when nothing is. Raises DecodeError, BrokerError."""
        found = self.get_metas([task_id])
        return found.get(task_id) or {"status": states.PENDING, "result": None, "task_id": task_id}

    def get_metas(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What is known of several tasks, by id; nothing of those of which nothing is known."""
        names = {self.key(task_id): task_id for task_id in ids}
        return {names[key]: _meta(value) for key, value in self._get(list(names)).items()}

    def _get(self, names: list[str]) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._cache.get_many(names)
        except (pickle.UnpicklingError, ImportError, AttributeError) as error:
            raise DecodeError("cannot read a result of the cache", why=str(error)) from error
        except Exception as error:  # each cache has errors of its own
            raise BrokerError(f"cannot read results in the cache {self._alias!r}", why=str(error)) from error
        return found

    def exists(self, task_id: str) -> bool:
        """Whether anything is stored for a task."""
        return bool(self._get([self.key(task_id)]))

    def stored(self, limit: int = 0) -> tuple[list[tuple[str, dict[str, Any]]], bool]:  # noqa: ARG002
        """Nobody can list what is in a cache."""
        return [], False

    # -- groups --------------------------------------------------------------------------------------------------------

    def save_group(self, group_id: str, result: Any) -> None:
        """Store which results a group has."""
        self._set({keys.group_result(group_id): {"result": result.as_tuple()}}, self.ttl_s)

    def restore_group(self, group_id: str) -> Any:
        """Which results a group has, as a tuple; None when that was not stored."""
        key = keys.group_result(group_id)
        found = self._get([key])
        return found[key]["result"] if key in found else None

    def delete_group(self, group_id: str) -> None:
        """Remove what is stored of a group."""
        self._cache.delete(keys.group_result(group_id))


def _meta(value: dict[str, Any]) -> dict[str, Any]:
    """A record, its error made again."""
    if value["status"] not in states.EXCEPTION_STATES:
        return value
    return {**value, "result": as_exception(value["result"])}
