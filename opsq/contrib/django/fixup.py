"""What an app does in a Django project (DJANGO_SETTINGS_MODULE is set), as Celery's fix-up does it.

Django is set up before tasks are imported, `autodiscover_tasks()` looks into INSTALLED_APPS, tasks know
`delay_on_commit`, tasks of Django's own interface (`TASKS`) are the app's too, and a worker treats Django's state
around each task as Django treats it around each request. Nothing of Django is imported before the app needs it: this
module is loaded with the app.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from opsq import signals
from opsq.app.blame import broken
from opsq.app.task import Task
from opsq.exceptions import FixupWarning, ImproperlyConfigured

TASK_CLASS = "opsq.contrib.django.task:DjangoTask"


def install(app: Any) -> None:
    """Make an app one of the Django project that the environment names."""
    if find_spec("django") is None:
        named = os.environ.get("DJANGO_SETTINGS_MODULE")
        warnings.warn(
            FixupWarning(f"DJANGO_SETTINGS_MODULE is {named}, but Django is not installed: the app runs without it"),
            stacklevel=3,
        )
        return
    if app.task_cls is Task:
        app.task_cls = TASK_CLASS
    app.default_packages = _installed_apps
    app.around_task = _around_task
    app.more_queues = _queues

    def adopt_tasks() -> None:
        if (interface := _task_interface()) is not None:
            interface.adopt(app)

    app.adopt_tasks = adopt_tasks

    def set_up() -> None:
        app.conf.load()  # what is wrong with the settings is told as such
        try:
            importlib.import_module("opsq.contrib.django.setup").set_up()
        except (Exception, SystemExit) as error:
            raise broken("cannot set up Django", error) from error
        _state().watch_forks()

    def let_go(sender: Any, **_told: Any) -> None:
        if sender.app is app:
            _state().let_go()

    app.before_imports = set_up
    signals.worker_init.connect(let_go, weak=False)


def _state() -> Any:
    return importlib.import_module("opsq.contrib.django.state")


def _installed_apps() -> list[str]:
    registry = importlib.import_module("django.apps").apps
    return [config.name for config in registry.get_app_configs()]


def _task_interface() -> Any:
    """opsq's side of Django's own task interface; None where the project does not use that (`TASKS`)."""
    settings = importlib.import_module("django.conf").settings
    try:
        if not getattr(settings, "TASKS", None):
            return None
        return importlib.import_module("opsq.contrib.django.tasks_backend")
    except ImportError:  # of the settings, or of the interface: said by whoever needs them
        return None


def _queues() -> list[str]:
    interface = _task_interface()
    try:
        queues: list[str] = [] if interface is None else interface.queues()
    except importlib.import_module("django.core.exceptions").ImproperlyConfigured as error:
        raise ImproperlyConfigured("cannot use the setting TASKS", why=str(error)) from error
    return queues


def _around_task(call: Callable[..., Any], coroutine: bool) -> Callable[..., Any]:
    state = _state()
    made: Callable[..., Any] = (state.around_coroutine if coroutine else state.around)(call)
    return made
