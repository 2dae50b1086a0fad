"""Many calls at once: what `App.send_many` is given becomes calls of the publisher, and a result for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opsq.app import eager
from opsq.app.publisher import Call, running_request
from opsq.app.task import Task
from opsq.result.single import AsyncResult
from opsq.utils.ids import new_task_id

if TYPE_CHECKING:
    from opsq.app.base import App


_SEQUENCES = (tuple, list)


def send_many(app: App, calls: Iterable[Any]) -> list[AsyncResult]:
    """Send calls; returns their results in order."""
    results: list[AsyncResult] = []
    sent: list[AsyncResult] = []
    ids = app.publisher.send_many(_calls(app, calls, results, sent))
    for result, task_id in zip(sent, ids, strict=True):
        result.id = task_id
    parent = running_request()
    if parent is not None:
        for result in sent:
            parent.task.add_trail(result)
    return results


def sender_of_group(
    app: App, name: str, task: Any, options: Mapping[str, Any]
) -> Callable[[Sequence[Any]], list[AsyncResult]] | None:
    """What sends calls of one task with these options: (id, args, kwargs, index in the group, id of the root) of each.

    None when the task's class has a say in each call.
    """
    task = task if task is not None else app.task_named(name)
    own = type(task)
    if task is not None and (own.apply_async is not Task.apply_async or own.shadow_name is not Task.shadow_name):
        return None
    options = {key: value for key, value in options.items() if value is not None}

    def send(members: Sequence[Any]) -> list[AsyncResult]:
        app.publisher.send_many(_members(name, task, options, members))
        ignored = options.get("ignore_result")
        ignored = bool(task.ignore_result if ignored is None and task is not None else ignored)
        results = [AsyncResult(member[0], task_name=name, app=app) for member in members]
        for result in results if ignored else ():
            result.ignored = True
        return results

    return send


def _members(name: str, task: Any, options: Mapping[str, Any], members: Sequence[Any]) -> Iterator[Call]:
    check = task.check_arguments if task is not None and task.checks_arguments else None
    for task_id, args, kwargs, index, root_id in members:
        if check is not None:
            check(*args, **kwargs)
        varying = {"group_index": index} if root_id is None else {"group_index": index, "root_id": root_id}
        yield Call(name, args, kwargs, task_id, task, {**options, **varying})


def _calls(app: App, given: Iterable[Any], results: list[AsyncResult], sent: list[AsyncResult]) -> Iterator[Call]:
    """The calls one by one; the result of each is added to the lists. Eager ones run here."""
    eagerly = app.conf.task_always_eager
    for each in given:
        what, args, kwargs, options = _parts(each)
        if isinstance(what, str):
            name, task = what, app.task_named(what)
        else:
            name, task = what.name, what
            if task.checks_arguments:
                task.check_arguments(*(args or ()), **(kwargs or {}))
            shadow = options.get("shadow") or task.shadow_name(args, kwargs, options)
            if shadow:
                options = {**options, "shadow": shadow}
        task_id = options.get("task_id")
        if task_id:
            options = {name: value for name, value in options.items() if name != "task_id"}
        if eagerly and not isinstance(what, str):
            results.append(eager.apply_as_sent(task, args, kwargs, task_id, options))
            continue
        task_id = str(task_id or new_task_id())
        result = AsyncResult(task_id, task_name=name, app=app)
        ignored = options.get("ignore_result")
        result.ignored = bool(task.ignore_result if ignored is None and task is not None else ignored)
        results.append(result)
        sent.append(result)
        yield Call(name, args, kwargs, task_id, task, options)


def _parts(call: Any) -> tuple[Any, Any, Any, Mapping[str, Any]]:
    """Task or name, args, kwargs and options of a tuple or a signature."""
    if isinstance(call, _SEQUENCES) and 1 <= len(call) <= 4:
        what, args, kwargs, options = (*call, None, None, None)[:4]
        return what, args, kwargs, options or {}
    if not isinstance(call, Mapping):
        raise TypeError(f"a call is (task, args, kwargs, options) or a signature, not {call!r}")
    if call.get("subtask_type"):
        raise TypeError(f"send_many() takes calls of single tasks, not a {call['subtask_type']}")
    return call["task"], call.get("args"), call.get("kwargs"), call.get("options") or {}
