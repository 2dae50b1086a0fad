"""Tasks of Django's own interface in a worker: each is a task of opsq under its path (`shop.tasks.charge`)."""

from __future__ import annotations

import functools
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import Any, ClassVar

from asgiref.sync import sync_to_async
from django.utils import timezone

from opsq import states
from opsq.contrib.django import tasks_calls
from opsq.contrib.django.task import DjangoTask
from opsq.contrib.django.tasks_calls import HEADER, Attempt, Call, level
from opsq.contrib.django.tasks_interface import (
    TaskContext,
    TaskResultStatus,
    normalize_json,
    task_finished,
    task_started,
    tasks_of,
)
from opsq.contrib.django.tasks_results import as_called, become, error_of, result_of
from opsq.exceptions import BrokerError, TaskPredicate
from opsq.execution.runner import traceback_text

logger = logging.getLogger("opsq.task")

#: The request of a run keeps its TaskResult under this name.
_RESULT = "django_task_result"


class InterfaceTask(DjangoTask[Any, Any]):
    """What a worker runs for a Task of Django's interface."""

    typing = False
    ignore_result = False
    #: The Task, and the class of its backend.
    interface: ClassVar[Any] = None
    sender: ClassVar[Any] = None

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:  # noqa: ARG002
        """Tell `task_finished` of a run that was killed or lost; the others have told it themselves."""
        if _RESULT in self.request.at_hand() or not self._is_sent():
            return
        call, attempts = tasks_calls.read(self.app, task_id)
        call = call or self._call()
        result = result_of(call, as_called(self.interface, call), task_id, attempts, {"status": states.STARTED})
        try:
            raise exc  # receivers log what is being handled
        except BaseException as error:
            self._finished(result, error)

    def _is_sent(self) -> bool:
        """Whether it came as a message: there is nothing to be known of a call that was made in this process."""
        return self.request.envelope is not None

    def _began(self) -> Any:
        """The TaskResult of the run that begins; those who want to know are told."""
        request, call, attempts = self.request, self._call(), [Attempt(round(time.time(), 6), self.request.hostname)]
        if self._is_sent() and self.app.backend.keeps_results:
            try:
                attempts = tasks_calls.begin(self.app, request.id, call, attempts[0])
            except BrokerError as error:
                logger.warning("cannot note that %s[%s] has begun: %s", self.name, request.id, error)
        task = as_called(self.interface, call)
        result = result_of(call, task, request.id or "", attempts, {"status": states.STARTED})
        request.update(**{_RESULT: result})
        task_started.send_robust(self.sender, task_result=result)
        return result

    def _call(self) -> Call:
        """The call as its message says it; one that was not made by the interface has the Task's own terms."""
        task, request = self.interface, self.request
        own = {"backend": task.backend, "queue_name": task.queue_name, "priority": task.priority}
        said = {**own, "run_after": None, "enqueued_at": None, **(request.get(HEADER) or {})}
        return Call(self.name, _plain(request.args or ()), _plain(request.kwargs or {}), **said)

    def _ended(self, result: Any, value: Any) -> None:
        become(result, status=TaskResultStatus.SUCCESSFUL, finished_at=timezone.now(), _return_value=value)
        task_finished.send_robust(self.sender, task_result=result)

    def _finished(self, result: Any, error: BaseException) -> None:
        """It has failed; while the error is being handled."""
        become(result, status=TaskResultStatus.FAILED, finished_at=timezone.now())
        result.errors.append(error_of(error, traceback_text(error)))
        task_finished.send_robust(self.sender, task_result=result)


def adopt(app: Any, chosen: Callable[[Any], Any]) -> None:
    """Register the Tasks of all modules that are imported. `chosen`: the backend of opsq that a Task goes by."""
    for module in list(sys.modules.values()):
        for task in tasks_of(module).values():
            _register(app, task, chosen(task))


def _register(app: Any, task: Any, backend: Any) -> None:
    if app.task_named(task.module_path) is not None:
        return
    run = _coroutine_of(task) if iscoroutinefunction(task.func) else _function_of(task)
    about = {"__doc__": task.func.__doc__, "__module__": task.func.__module__, "name": task.module_path}
    how = {"queue": task.queue_name, "priority": level(task.priority), **backend.task_options}
    members = {**about, "run": run, "interface": task, "sender": type(backend), **how}
    app.register_task(type(task.name, (InterfaceTask, app.Task), members))


def _function_of(task: Any) -> Callable[..., Any]:
    @functools.wraps(task.func)
    def run(self: InterfaceTask, *args: Any, **kwargs: Any) -> Any:
        result = self._began()
        try:
            value = normalize_json(task.func(*_context(task, result), *args, **kwargs))
        except TaskPredicate:
            raise
        except BaseException as error:
            self._finished(result, error)
            raise
        self._ended(result, value)
        return value

    return run


def _coroutine_of(task: Any) -> Callable[..., Any]:
    """The same for `async def`; what may wait is done in Django's thread for such code."""

    @functools.wraps(task.func)
    async def run(self: InterfaceTask, *args: Any, **kwargs: Any) -> Any:
        result = await sync_to_async(self._began)()
        try:
            value = normalize_json(await task.func(*_context(task, result), *args, **kwargs))
        except (TaskPredicate, GeneratorExit):
            raise
        except BaseException as error:
            await sync_to_async(self._finished)(result, error)
            raise
        await sync_to_async(self._ended)(result, value)
        return value

    return run


def _context(task: Any, result: Any) -> tuple[Any, ...]:
    return (TaskContext(task_result=result),) if task.takes_context else ()


def _plain(value: Sequence[Any] | Mapping[str, Any]) -> Any:
    """Arguments as JSON holds them; those of calls that were not made by the interface may be anything."""
    return json.loads(json.dumps(value, default=repr))
