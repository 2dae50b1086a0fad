"""Django's own task interface: `django.tasks` of Django 6.0, and for older ones the package `django-tasks`."""

from __future__ import annotations

from typing import Any

import django

if django.VERSION >= (6, 0):
    from django.tasks import DEFAULT_TASK_QUEUE_NAME as DEFAULT_TASK_QUEUE_NAME
    from django.tasks import TaskContext as TaskContext
    from django.tasks import TaskResult as TaskResult
    from django.tasks import TaskResultStatus as TaskResultStatus
    from django.tasks import task_backends as task_backends
    from django.tasks.backends.base import BaseTaskBackend as BaseTaskBackend
    from django.tasks.base import Task as Task
    from django.tasks.base import TaskError as TaskError
    from django.tasks.exceptions import TaskException as TaskException
    from django.tasks.exceptions import TaskResultDoesNotExist as TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued as task_enqueued
    from django.tasks.signals import task_finished as task_finished
    from django.tasks.signals import task_started as task_started
    from django.utils.json import normalize_json as normalize_json
else:
    from django_tasks import DEFAULT_TASK_QUEUE_NAME as DEFAULT_TASK_QUEUE_NAME
    from django_tasks import TaskContext as TaskContext
    from django_tasks import TaskResult as TaskResult
    from django_tasks import TaskResultStatus as TaskResultStatus
    from django_tasks.backends.base import BaseTaskBackend as BaseTaskBackend

    if not hasattr(TaskResultStatus, "SUCCESSFUL"):
        raise ImportError("opsq.contrib.django.tasks needs django-tasks 0.12 or newer")
    from django_tasks import task_backends as task_backends
    from django_tasks.base import Task as Task
    from django_tasks.base import TaskError as TaskError
    from django_tasks.exceptions import TaskException as TaskException
    from django_tasks.exceptions import TaskResultDoesNotExist as TaskResultDoesNotExist
    from django_tasks.signals import task_enqueued as task_enqueued
    from django_tasks.signals import task_finished as task_finished
    from django_tasks.signals import task_started as task_started
    from django_tasks.utils import normalize_json as normalize_json


def tasks_of(module: object) -> dict[str, Any]:
    """The Tasks that a module makes of its functions, by path; of several of one, that under the function's name."""
    found: dict[str, Any] = {}
    for name, value in list(getattr(module, "__dict__", {}).items()):
        if not issubclass(type(value), Task):  # not isinstance: it looks into Django's lazy objects
            continue
        own = name == value.func.__qualname__ or value.module_path not in found
        if own and value.func.__module__ == getattr(module, "__name__", None):
            found[value.module_path] = value
    return found
