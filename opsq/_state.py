"""The current app and the current task: the only module-level state that changes.

A thread or asyncio task sees its own stack of running tasks; the app is the process's unless a thread sets its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

#: Made when somebody asks for the current app and there is none; set by `opsq.app`.
default_app_factory: Callable[[], Any] | None = None
#: Called for every app that is finalized (shared tasks wait here for apps to come).
on_app_finalizers: set[Callable[[Any], Any]] = set()

_default_app: Any = None
_thread = threading.local()
_requests: ContextVar[tuple[Any, ...]] = ContextVar("opsq_requests", default=())
_broker_epoch = 0.0

#: A wall clock that is not more wrong than this (seconds) is right.
CLOCK_TOLERANCE_S = 0.5


def set_broker_epoch(seconds: float) -> None:
    """The broker's time (Unix seconds) at the zero of this host's monotonic clock; 0 = not known."""
    global _broker_epoch
    _broker_epoch = seconds


def broker_time() -> float:
    """Now (Unix seconds): by this host's wall clock as long as it is right, else by the broker's, where that is known.

    What is due and what has expired goes by this: a host whose clock is wrong, or jumps, neither waits nor hurries.
    """
    now = time.time()
    if not _broker_epoch:
        return now
    expected = time.monotonic() + _broker_epoch
    return now if abs(now - expected) <= CLOCK_TOLERANCE_S else expected


def broker_time_at(moment: float) -> float:
    """When a moment of this host's monotonic clock was (Unix seconds), the same for all processes of a worker."""
    return moment + (_broker_epoch or time.time() - time.monotonic())


def set_default_app(app: Any) -> None:
    """The app of threads that set none."""
    global _default_app
    _default_app = app


def set_current_app(app: Any) -> None:
    """Make `app` the current one of this thread, and the process's default if there is none yet."""
    _thread.app = app
    if _default_app is None:
        set_default_app(app)


def current_app_or_none() -> Any:
    """The current app, or None."""
    return getattr(_thread, "app", None) or _default_app


def get_current_app() -> Any:
    """The current app; one without a name is made when there is none."""
    app = current_app_or_none()
    if app is None and default_app_factory is not None:
        app = default_app_factory()
        set_default_app(app)
    return app


@contextmanager
def apps_restored() -> Iterator[None]:
    """In the end the current app of this thread, the default one and the shared tasks are those that they were."""
    before, default, shared = getattr(_thread, "app", None), _default_app, set(on_app_finalizers)
    try:
        yield
    finally:
        _thread.app = before
        set_default_app(default)
        on_app_finalizers.clear()
        on_app_finalizers.update(shared)


def app_or_default(app: Any = None) -> Any:
    """This app, or else the current one."""
    return get_current_app() if app is None else app


def connect_on_app_finalize(callback: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Have a function called with every app that is finalized, those that are already too; a decorator."""
    on_app_finalizers.add(callback)
    return callback


def push_request(context: Any) -> Any:
    """The request of a task that begins to run here, `task_object`; the token goes to `pop_request`."""
    return _requests.set((*_requests.get(), context))


def pop_request(token: Any) -> None:
    """The task of this token has ended."""
    _requests.reset(token)


def running_task() -> tuple[str, str] | None:
    """Name and id of the task that runs in this thread."""
    request = current_request()
    return (request.task_object.name, request.id) if request is not None and request.task_object is not None else None


def current_request() -> Any:
    """The request of the task that runs here (innermost), or None."""
    stack = _requests.get()
    return stack[-1] if stack else None


def first_request() -> Any:
    """The request of the task that a worker runs here, whatever it calls by itself (outermost), or None."""
    stack = _requests.get()
    return stack[0] if stack else None


def request_of(task: Any) -> Any:
    """The innermost request of this very task here, or None when it does not run."""
    for context in reversed(_requests.get()):
        if context.task_object is task:
            return context
    return None


def get_current_task() -> Any:
    """The task that runs here (innermost), or None."""
    stack = _requests.get()
    return stack[-1].task_object if stack else None


def get_current_worker_task() -> Any:
    """The task that a worker runs here, whatever it calls by itself, or None."""
    request = first_request()
    return None if request is None or request.called_directly else request.task_object


class Proxy:
    """Stands for an object that is looked up at each use."""

    __slots__ = ("__dict__", "_lookup")

    def __init__(self, lookup: Callable[[], Any]) -> None:
        object.__setattr__(self, "_lookup", lookup)

    def _get_current_object(self) -> Any:
        return object.__getattribute__(self, "_lookup")()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get_current_object(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._get_current_object(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._get_current_object(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._get_current_object()(*args, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        return self._get_current_object()[key]

    def __bool__(self) -> bool:
        return bool(self._get_current_object())

    def __eq__(self, other: object) -> bool:
        return bool(self._get_current_object() == other)

    def __hash__(self) -> int:
        return hash(self._get_current_object())

    def __repr__(self) -> str:
        return repr(self._get_current_object())


current_app = Proxy(get_current_app)
current_task = Proxy(get_current_task)
