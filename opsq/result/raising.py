"""A task's error, raised where its result is asked for."""

from __future__ import annotations

from typing import Any, NoReturn


class RemoteTraceback(Exception):
    """The traceback of an error where it happened: the cause of the error that `get()` raises here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def throw(value: Any, traceback: str | None) -> NoReturn:
    """Raise a task's error here, with what is known of where it came from."""
    error = value if isinstance(value, BaseException) else Exception(value)
    if traceback and error.__cause__ is None and error.__traceback__ is None:
        raise error from RemoteTraceback(traceback)
    raise error
