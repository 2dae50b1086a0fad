"""A backend of Django's own task interface: it sends to opsq's workers, and knows what became of what it has sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from time import time
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.utils.module_loading import import_string

from opsq.contrib.django import tasks_calls, tasks_results, tasks_running
from opsq.contrib.django.project import project_app, use_settings_app
from opsq.contrib.django.tasks_calls import HEADER, Call, level
from opsq.contrib.django.tasks_interface import (
    DEFAULT_TASK_QUEUE_NAME,
    BaseTaskBackend,
    TaskResult,
    TaskResultStatus,
    task_backends,
    task_enqueued,
)
from opsq.exceptions import BrokerError, OpsqError, did_you_mean
from opsq.utils.ids import new_task_id

#: What OPTIONS may say: options of opsq's tasks.
TASK_OPTIONS = (
    *("acks_late", "acks_on_failure_or_timeout", "reject_on_worker_lost", "time_limit", "soft_time_limit", "expires"),
    *("rate_limit", "rate_limit_scope", "max_concurrency", "circuit_breaker"),
)


class OpsqBackend(BaseTaskBackend):
    """`TASKS = {"default": {"BACKEND": "opsq.contrib.django.tasks.OpsqBackend"}}`."""

    supports_defer = True
    supports_async_task = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        #: What holds for all of its tasks.
        self.task_options = dict(params.get("OPTIONS") or {})
        for name in self.task_options:
            if name not in TASK_OPTIONS:
                hint = did_you_mean(name, TASK_OPTIONS, f"there are {', '.join(TASK_OPTIONS)}")
                raise task_backends.exception_class(f"TASKS[{alias!r}]: OPTIONS has no {name!r}: {hint}")
        use_settings_app()

    @property
    def app(self) -> Any:
        """The project's app. Raises OpsqError."""
        return project_app()

    @property
    def supports_get_result(self) -> bool:
        """Whether results are kept anywhere (`CELERY_RESULT_BACKEND`)."""
        return bool(self.app.backend.keeps_results)

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Send a call; its TaskResult. Raises OperationalError when the broker does not take it."""
        self.validate_task(task)
        now = round(time(), 6)
        result = TaskResult(
            task=task,
            id=new_task_id(),
            status=TaskResultStatus.READY,
            enqueued_at=tasks_results.moment(now),
            started_at=None,
            last_attempted_at=None,
            finished_at=None,
            args=list(args),
            kwargs=dict(kwargs),
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        run_after = None if task.run_after is None else tasks_results.seconds_of(task.run_after)
        how = (self.alias, task.queue_name, task.priority, run_after, now)
        self._send(result.id, Call(task.module_path, result.args, result.kwargs, *how))
        task_enqueued.send_robust(type(self), task_result=result)
        return result

    def _send(self, task_id: str, call: Call) -> None:
        app = self.app
        noted = self.supports_get_result
        if noted:
            tasks_calls.write(app, task_id, call)  # first: a worker may be done with it at once
        options = {name: self.task_options[name] for name in ("expires",) if name in self.task_options}
        if call.run_after is not None:
            options["eta"] = datetime.fromtimestamp(call.run_after, UTC)
        options |= {"queue": call.queue_name, "priority": level(call.priority), "headers": {HEADER: call.header()}}
        try:
            app.send_task(call.task, call.args, call.kwargs, task_id=task_id, ignore_result=not noted, **options)
        except BaseException:
            if noted:
                with suppress(BrokerError):
                    tasks_calls.forget(app, task_id)
            raise

    def get_result(self, result_id: str) -> Any:
        """The TaskResult of a call. Raises TaskResultDoesNotExist; NotImplementedError when no results are kept."""
        if not self.supports_get_result:
            raise NotImplementedError("opsq keeps no results here: set CELERY_RESULT_BACKEND, to the broker's URL say")
        return tasks_results.find(self.app, result_id)

    def check(self, **_told: Any) -> Iterable[CheckMessage]:
        """For `manage.py check`."""
        try:
            keeps = self.supports_get_result
        except BrokerError:
            return  # none runs here now
        except OpsqError as error:
            yield Error(f"TASKS[{self.alias!r}] has no app: {error}", hint=error.hint or None, id="opsq.E011")
            return
        if not keeps:
            yield Warning(
                f"TASKS[{self.alias!r}]: nobody knows what becomes of tasks, as no results are kept (result_backend)",
                hint='Set CELERY_RESULT_BACKEND, to the broker\'s URL or to "django-db".',
                id="opsq.W011",
            )


def backends() -> Iterator[OpsqBackend]:
    """Those of the project's settings that are opsq's, in their order."""
    for alias, params in (getattr(settings, "TASKS", None) or {}).items():
        with suppress(ImportError):  # Django says so to whoever uses it
            kind = import_string(params.get("BACKEND", ""))
            if isinstance(kind, type) and issubclass(kind, OpsqBackend):
                yield task_backends[alias]


def queues() -> list[str]:
    """The queues that workers consume for these tasks; where any may be used, the interface's own."""
    return sorted({queue for backend in backends() for queue in backend.queues or (DEFAULT_TASK_QUEUE_NAME,)})


def adopt(app: Any) -> None:
    """Have an app know the tasks of all modules that are imported, if a backend of opsq may send them."""
    found = {backend.alias: backend for backend in backends()}
    if found:
        first = next(iter(found.values()))
        tasks_running.adopt(app, lambda task: found.get(task.backend, first))
