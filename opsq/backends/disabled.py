"""No place for results: they are not kept, and who asks for one is told which line to add."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from opsq.backends.celery_words import CelerysWords
from opsq.exceptions import ImproperlyConfigured


class DisabledBackend(CelerysWords):
    """What an app has that names a broker and no result backend, as in Celery."""

    url: str | None = None
    keeps_results = False
    expires_itself = True

    def __init__(self, app: Any) -> None:
        self.app = app

    def record(self, request: Any, state: str, value: Any, traceback: str | None) -> bytes:  # noqa: ARG002
        """Nothing is to be stored."""
        return b""

    def writes(self, request: Any, state: str, value: Any, traceback: str | None = None) -> NoReturn:  # noqa: ARG002
        """Say which line to add."""
        raise self._none(request.id)

    def store(self, task_id: str, state: str, result: Any, traceback: str | None = None, request: Any = None) -> None:
        """Nothing is stored."""

    def store_records(self, records: Iterable[tuple[str, int, bytes]]) -> None:
        """Nothing is stored."""

    def forget(self, task_id: str) -> None:
        """There is nothing to forget."""

    def cleanup(self) -> None:
        """There is nothing that could expire."""

    def get_meta(self, task_id: str) -> NoReturn:
        """Say which line to add."""
        raise self._none(task_id)

    def wait(self, ids: Iterable[str], *_args: Any, **_kwargs: Any) -> NoReturn:
        """Say which line to add, at once."""
        raise self._none(next(iter(ids), ""))

    def get_metas(self, ids: Iterable[str]) -> NoReturn:
        """Say which line to add."""
        raise self._none(next(iter(ids), ""))

    def stored(self, limit: int = 0) -> NoReturn:  # noqa: ARG002
        """Say which line to add."""
        raise self._none("any task")

    def wait_each(self, ids: Iterable[str], *_args: Any, **_kwargs: Any) -> NoReturn:
        """Say which line to add, at once."""
        raise self._none(next(iter(ids), ""))

    def save_group(self, group_id: str, result: Any) -> NoReturn:  # noqa: ARG002
        """Say which line to add."""
        raise self._none(f"the group {group_id}")

    def restore_group(self, group_id: str) -> NoReturn:
        """Say which line to add."""
        raise self._none(f"the group {group_id}")

    def delete_group(self, group_id: str) -> None:
        """There is nothing to remove."""

    def set_chord_size(self, group_id: str, size: int, body: Any) -> NoReturn:  # noqa: ARG002
        """Chords are counted where results are kept: say which line to add."""
        raise self._no_chords()

    def begin_chord(self, header: Any) -> NoReturn:  # noqa: ARG002
        """Say which line to add."""
        raise self._no_chords()

    def add_to_chord(self, group_id: str, result: Any) -> NoReturn:  # noqa: ARG002
        """Say which line to add."""
        raise self._no_chords()

    def chord_member(self, task_id: str, state: str, value: Any) -> bytes:  # noqa: ARG002
        """Nothing is counted."""
        return b""

    def count_parts(self, parts: Iterable[Any]) -> NoReturn:  # noqa: ARG002
        """Say which line to add."""
        raise self._no_chords()

    def exists(self, task_id: str) -> NoReturn:
        """Say which line to add."""
        raise self._none(task_id)

    def _none(self, task_id: str) -> ImproperlyConfigured:
        return self._error(f"cannot get the result of {task_id}", "so results are not kept")

    def _no_chords(self) -> ImproperlyConfigured:
        return self._error("cannot send a chord", "so nobody can count its parts")

    def _error(self, what: str, consequence: str) -> ImproperlyConfigured:
        return ImproperlyConfigured(
            what,
            why=f"the app names a broker and no result backend, {consequence}",
            hint=f'add backend="redis://..." to {type(self.app).__name__}(...), or result_backend to the settings',
        )
