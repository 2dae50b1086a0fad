"""Which function makes a coroutine, and what of one this thread runs: known without asyncio, which few tasks need."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio


class Interruptible(Protocol):
    """A coroutine that is being run."""

    @property
    def waits(self) -> bool:
        """Whether no code of a task runs at this moment."""

    def raise_soon(self, error: type[BaseException]) -> None:
        """Raise the error at the next await."""


class Here:
    """The coroutine that a thread runs to its end, if it does."""

    def __init__(self) -> None:
        self.runner: asyncio.Runner | None = None
        self.drive: Interruptible | None = None

    def interrupt(self, error: type[BaseException]) -> bool:
        """Raise the error in it, if it waits for something; false when code runs that can be interrupted as such."""
        drive = self.drive
        if drive is None or not drive.waits:
            return False
        drive.raise_soon(error)
        return True


_threads = threading.local()


def here() -> Here:
    """What this thread runs."""
    found: Here | None = getattr(_threads, "here", None)
    if found is None:
        found = _threads.here = Here()
    return found


def is_coroutine(function: Callable[..., Any]) -> bool:
    """Whether calling it makes a coroutine (`async def`)."""
    return inspect.iscoroutinefunction(function)
