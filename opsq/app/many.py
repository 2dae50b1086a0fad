"""Many calls at once: what `App.send_many` is given becomes calls of the publisher, and a result for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from opsq.app import eager
from opsq.app.preparing import ignores_result
from opsq.app.publisher import Call, Member
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
    app.note_children(sent)
    return results


def sender_of_group(
    app: App, name: str, task: Any, options: Mapping[str, Any]
) -> Callable[[Sequence[Member]], list[AsyncResult]] | None:
    """What sends calls of one task with these options. None when the task's class has a say in each call."""
    task = task if task is not None else app.task_named(name)
    if task is not None and (type(task).apply_async is not Task.apply_async or _names_shadows(task)):
        return None
    options = {key: value for key, value in options.items() if value is not None}

    def send(members: Sequence[Member]) -> list[AsyncResult]:
        app.publisher.send_members(name, task, options, _checked(task, members))
        ignored = ignores_result(task, options)
        results = [AsyncResult(member[0], None, name, app) for member in members]
        for result in results if ignored else ():
            result.ignored = True
        return results

    return send


def _checked(task: Any, members: Sequence[Member]) -> Iterable[Member]:
    """Calls of a task whose arguments are checked as they are sent."""
    if task is None or not task.checks_arguments:
        yield from members
        return
    check = task.check_arguments
    for member in members:
        check(*member[1], **member[2])
        yield member


def _calls(app: App, given: Iterable[Any], results: list[AsyncResult], sent: list[AsyncResult]) -> Iterator[Call]:
    """The calls one by one; the result of each is added to the lists. Eager ones run here."""
    last = callee = None
    for each in given:
        what, args, kwargs, options = _parts(each)
        if callee is None or what is not last:
            last, callee = what, _callee(app, what)
        name, task, check, shadows, ignored, eagerly = callee
        if check is not None:
            check(*(args or ()), **(kwargs or {}))
        if shadows and not options.get("shadow"):
            shadow = task.shadow_name(args, kwargs, options)
            options = {**options, "shadow": shadow} if shadow else options
        task_id = None
        if options:
            task_id, ignored = options.get("task_id"), ignores_result(task, options)
            options = {name: value for name, value in options.items() if name != "task_id"}
        if eagerly:
            results.append(eager.apply_as_sent(task, args, kwargs, task_id, options))
            continue
        task_id = str(task_id) if task_id else new_task_id()
        result = AsyncResult(task_id, None, name, app)
        result.ignored = ignored
        results.append(result)
        sent.append(result)
        yield name, args, kwargs, task_id, task, options


class _Callee(NamedTuple):
    """What holds for all calls of a task; `check`: of their arguments, None: they are not checked."""

    name: str
    task: Any
    check: Callable[..., None] | None
    shadows: bool
    ignored: bool
    eagerly: bool


def _callee(app: App, what: Any) -> _Callee:
    """`what`: a task, or the name of one: then neither arguments nor shadow are its own business."""
    if isinstance(what, str):
        task = app.task_named(what)
        return _Callee(what, task, None, False, ignores_result(task, {}), False)
    check = what.check_arguments if what.checks_arguments else None
    eagerly = bool(app.conf.task_always_eager)
    return _Callee(what.name, what, check, _names_shadows(what), ignores_result(what, {}), eagerly)


def _names_shadows(task: Any) -> bool:
    """Whether the class of a task names calls."""
    return type(task).shadow_name is not Task.shadow_name


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
