"""Fixtures for the tests of programs, under Celery's names: `pytest_plugins = ("opsq.contrib.pytest",)` in conftest.py.

It is no plugin that pytest finds by itself: a project that has Celery's own uses that one until it says otherwise.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from opsq.app.base import App
from opsq.contrib.testing.app import TestApp, setup_default_app
from opsq.contrib.testing.worker import TestWorker, start_worker

#: Set: the fixtures start no workers.
NO_WORKER = os.environ.get("NO_WORKER")


def pytest_configure(config: pytest.Config) -> None:
    """The marker `@pytest.mark.celery(setting=value)` changes settings of a test's app."""
    config.addinivalue_line("markers", "celery(**overrides): override celery configuration for a test case")


@contextmanager
def _app_of(
    request: pytest.FixtureRequest, config: Mapping[str, Any], parameters: Mapping[str, Any], logs: bool, trap: bool
) -> Iterator[App]:
    mark = request.node.get_closest_marker("celery")
    settings = {**config, **(mark.kwargs if mark else {})}
    app = TestApp(set_as_current=False, enable_logging=logs, config=settings, **parameters)
    with setup_default_app(app, use_trap=trap):
        yield app


@pytest.fixture(scope="session")
def celery_config() -> Mapping[str, Any]:
    """Settings of the test's app; to be overridden."""
    return {}


@pytest.fixture(scope="session")
def celery_parameters() -> Mapping[str, Any]:
    """Parameters of the app's class; to be overridden."""
    return {}


@pytest.fixture(scope="session")
def celery_enable_logging() -> bool:
    """Celery's: whether it sets up logging. Here pytest's own captures what is logged."""
    return False


@pytest.fixture(scope="session")
def use_celery_app_trap() -> bool:
    """Override it with True: who asks for the current app fails."""
    return False


@pytest.fixture(scope="session")
def celery_includes() -> Sequence[str]:
    """Modules that are imported before a worker starts; to be overridden."""
    return ()


@pytest.fixture(scope="session")
def celery_class_tasks() -> Sequence[Any]:
    """Task classes that are registered with the session's app; to be overridden."""
    return ()


@pytest.fixture(scope="session")
def celery_worker_pool() -> str:
    """The pool of the workers; to be overridden."""
    return "solo"


@pytest.fixture(scope="session")
def celery_worker_parameters() -> Mapping[str, Any]:
    """Parameters of `start_worker`; to be overridden."""
    return {}


@pytest.fixture
def celery_app(
    request: pytest.FixtureRequest,
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[App]:
    """An app for one test."""
    with _app_of(request, celery_config, celery_parameters, celery_enable_logging, use_celery_app_trap) as app:
        yield app


@pytest.fixture(scope="session")
def celery_session_app(
    request: pytest.FixtureRequest,
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[App]:
    """An app for all tests."""
    with _app_of(request, celery_config, celery_parameters, celery_enable_logging, use_celery_app_trap) as app:
        if not use_celery_app_trap:
            app.set_default()
            app.set_current()
        yield app


@pytest.fixture
def celery_worker(
    celery_app: App,
    celery_includes: Sequence[str],
    celery_worker_pool: str,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[TestWorker | None]:
    """A worker of the test's app, in a thread; it ends with the test."""
    with _worker_of(celery_app, celery_includes, celery_worker_pool, celery_worker_parameters) as worker:
        yield worker


@pytest.fixture(scope="session")
def celery_session_worker(
    celery_session_app: App,
    celery_includes: Sequence[str],
    celery_class_tasks: Sequence[Any],
    celery_worker_pool: str,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[TestWorker | None]:
    """A worker of the session's app, in a thread, for all tests."""
    for task in celery_class_tasks:
        celery_session_app.register_task(task)
    with _worker_of(celery_session_app, celery_includes, celery_worker_pool, celery_worker_parameters) as worker:
        yield worker


@contextmanager
def _worker_of(
    app: App, includes: Sequence[str], pool: str, parameters: Mapping[str, Any]
) -> Iterator[TestWorker | None]:
    if NO_WORKER:
        yield None
        return
    for module in includes:
        importlib.import_module(module)
    with start_worker(app, **{"pool": pool, **parameters}) as worker:
        yield worker


@pytest.fixture
def depends_on_current_app(celery_app: App) -> None:
    """The test's app is the current one."""
    celery_app.set_current()
