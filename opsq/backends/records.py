"""What places for results have in common: the form of records, their keys, groups and chords."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from opsq import states
from opsq.backends.base import Backend, Format, encode_meta, encode_success
from opsq.backends.celery_words import CelerysWords
from opsq.backends.chords import Chords
from opsq.datastore import keys


class Records(CelerysWords):
    """The results of one app, whatever keeps them. `key_prefix` stands before Celery's keys.

    What groups and chords need is kept in Redis by `chords`.
    """

    keeps_results = True
    expires_itself = True

    def __init__(self, url: str, wanted: Format, key_prefix: str, chords: Chords) -> None:
        self.url, self.format, self.key_prefix, self.chords = url, wanted, key_prefix, chords
        self._simple, self._packs = wanted.simple, bool(wanted.compression)

    @property
    def ttl_s(self) -> int:
        """How long results are kept; 0 = for ever."""
        return self.format.ttl_s

    def key(self, task_id: str) -> str:
        """Where a task's result is, and the channel on which it is announced."""
        return self.key_prefix + keys.result(task_id)

    def record(self, request: Any, state: str, value: Any, traceback: str | None = None) -> bytes:
        """The bytes to store for a run. Raises EncodeError."""
        if self._simple and state == states.SUCCESS:
            data = encode_success(request, value)
            if data is not None:
                return self.format.packed(data) if self._packs else data
        return encode_meta(self.format, request.id, state, value, traceback, request)

    def writes(self, request: Any, state: str, value: Any, traceback: str | None = None) -> tuple[str, bytes, int]:
        """Key, bytes and seconds to live of a run's result, for whoever writes it together with other things."""
        ttl_s = self.format.failure_ttl_s if state == states.FAILURE else self.format.ttl_s
        return self.key(request.id), self.record(request, state, value, traceback), ttl_s

    def wait(
        self: Backend,
        ids: Sequence[str],
        timeout_s: float | None = None,
        on_message: Callable[[dict[str, Any]], None] | None = None,
        on_interval: Callable[[], None] | None = None,
        interval_s: float = 0.5,
    ) -> dict[str, dict[str, Any]]:
        """Wait until all have ended; id -> what is known. Raises TimeoutError."""
        return dict(self.wait_each(ids, timeout_s, on_message, on_interval, interval_s))

    def cleanup(self) -> None:
        """What has expired is gone by itself."""

    # -- groups and chords ---------------------------------------------------------------------------------------------

    def save_group(self, group_id: str, result: Any) -> None:
        """Store which results a group has."""
        self.chords.save(group_id, result.as_tuple(), self.ttl_s)

    def restore_group(self, group_id: str) -> Any:
        """Which results a group has, as a tuple; None when that was not stored."""
        return self.chords.restore(group_id)

    def delete_group(self, group_id: str) -> None:
        """Remove what is stored of a group."""
        self.chords.delete(group_id)

    def set_chord_size(self, group_id: str, size: int, body: Mapping[str, Any]) -> None:
        """Say how many parts a chord has; before any of them is sent."""
        self.chords.set_size(group_id, size, body)

    def begin_chord(self, header: Any) -> None:
        """Store which results the header of a chord has, if there are groups among them."""
        if any(hasattr(result, "results") for result in header.results):
            self.chords.save(header.id, header.as_tuple(), self.chords.ttl_s)

    def add_to_chord(self, group_id: str, result: Any) -> None:  # noqa: ARG002 (Celery's signature)
        """A chord has one part more."""
        self.chords.grow(group_id)

    def chord_member(self, task_id: str, state: str, value: Any) -> bytes:
        """A part of a chord as it is kept until the others are there. Raises EncodeError."""
        return self.chords.member(task_id, state, value)

    def count_parts(self, parts: Iterable[Any]) -> None:
        """Count parts of chords that have ended where there is no turn that does it."""
        self.chords.count([self.chords.part(each, claim=False) for each in parts])
