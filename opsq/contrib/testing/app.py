"""Apps for tests, and the current app as it was before when a test has ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from opsq import _state
from opsq.app.base import App
from opsq.contrib.testing import tasks  # noqa: F401 (makes the task ping known to every app)

#: Settings of a test's app, unless it is told others.
DEFAULT_TEST_CONFIG: Mapping[str, Any] = {
    "worker_hijack_root_logger": False,
    "worker_log_color": False,
    "accept_content": {"json"},
    "enable_utc": True,
    "timezone": "UTC",
    "broker_url": "memory://",
    "result_backend": "cache+memory://",
}


class Trap:
    """In the place of the current app: whoever asks it for anything fails."""

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("_is_coroutine", "__func__", "__wrapped__"):  # what mocks ask of everything
            raise AttributeError(name)
        raise RuntimeError("Test depends on current_app")


def TestApp(
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    enable_logging: bool = False,  # noqa: ARG001 (Celery's signature: nothing is set up either way)
    set_as_current: bool = False,
    log: Any = None,  # noqa: ARG001
    backend: str | None = None,
    broker: str | None = None,
    **options: Any,
) -> App:
    """An app for tests; `memory://` is a Redis of this process alone."""
    settings = {**DEFAULT_TEST_CONFIG, **(config or {})}
    for setting, given in (("broker_url", broker), ("result_backend", backend)):
        if given is not None:
            settings[setting] = given
    return App(name or "celery.tests", set_as_current=set_as_current, changes=settings, **options)


TestApp.__test__ = False  # type: ignore[attr-defined]  # it is no test


@contextmanager
def set_trap(app: App) -> Iterator[None]:  # noqa: ARG001 (Celery's signature)
    """Nobody may ask for the current app."""
    with _state.apps_restored():
        _state.set_default_app(Trap())
        _state.set_current_app(Trap())
        yield


@contextmanager
def setup_default_app(app: App, use_trap: bool = False) -> Iterator[None]:
    """Whatever becomes the current app, or a shared task, is forgotten in the end."""
    with _state.apps_restored():
        if use_trap:
            with set_trap(app):
                yield
        else:
            yield
        app.close()
