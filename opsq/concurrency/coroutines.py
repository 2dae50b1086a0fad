"""Coroutines of tasks: awaited in a loop that is there (the asyncio pool), or run to their end in one of their own.

Either way an error can be raised inside them: at their next await.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Generator
from contextvars import copy_context
from typing import Any

from opsq.concurrency.base import HardLimit
from opsq.concurrency.here import here


class Awaited:
    """Something that an asyncio task awaits; errors can be put into it from any thread."""

    __slots__ = ("_error", "_loop", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None) -> None:
        """`task`: None as long as it has not begun, and when it has ended."""
        self._loop, self._task = loop, task
        self._error: type[BaseException] | None = None

    def raise_soon(self, error: type[BaseException]) -> None:
        """Raise the error at the next await."""
        self._loop.call_soon_threadsafe(self._cancel, error)

    def _cancel(self, error: type[BaseException]) -> None:
        self._error = error
        if self._task is not None:
            self._task.cancel()

    def _instead(self, error: BaseException) -> BaseException:
        """What a cancellation of ours means."""
        wanted, self._error = self._error, None
        if wanted is None or wanted is HardLimit or not isinstance(error, asyncio.CancelledError):
            return error  # at the hard limit it is cancelled, as any coroutine is
        if self._task is not None:
            self._task.uncancel()
        return wanted()


class Drive(Awaited):
    """Awaits one coroutine, in the asyncio task that awaits this."""

    __slots__ = ("_awaitable",)

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        super().__init__(asyncio.get_running_loop(), asyncio.current_task())
        self._awaitable = awaitable

    @property
    def waits(self) -> bool:
        """Whether the loop runs no code of a task at this moment."""
        return asyncio.current_task(self._loop) is None

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._awaitable.__await__()
        thrown: BaseException | None = None
        while True:
            try:
                waits_for = next(steps) if thrown is None else steps.throw(thrown)
            except StopIteration as end:
                return end.value
            thrown = None
            try:
                yield waits_for
            except BaseException as error:
                thrown = self._instead(error)


def to_end(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of an `async def` task as one that returns when its coroutine has ended."""

    def run(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        return run_awaitable(value) if inspect.isawaitable(value) else value

    return run


def _run_in_this_thread(awaitable: Awaitable[Any]) -> Any:
    """Run it to its end in this thread's loop, which stays for the next one: clients that belong to it live on."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        return _run_in_new_thread(awaitable)
    mine = here()
    if mine.runner is None:
        mine.runner = asyncio.Runner()

    async def body() -> Any:
        mine.drive = drive = Drive(awaitable)
        try:
            return await drive
        finally:
            mine.drive = None

    return mine.runner.run(body(), context=copy_context())


def _run_in_new_thread(awaitable: Awaitable[Any]) -> Any:
    """Where a loop runs already (a task called eagerly inside a coroutine)."""
    ended: list[Any] = []

    def body() -> None:
        try:
            ended.extend((True, _run_in_this_thread(awaitable)))
        except BaseException as error:
            ended.extend((False, error))

    thread = threading.Thread(target=copy_context().run, args=(body,), name="opsq-coroutine")
    thread.start()
    thread.join()
    if not ended[0]:
        raise ended[1]
    return ended[1]


#: Where coroutines are run to their end; greenlets share a thread, and so put another function here.
run_awaitable: Callable[[Awaitable[Any]], Any] = _run_in_this_thread
