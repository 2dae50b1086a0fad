"""The tasks of an app by name, and tasks that are defined before there is an app."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, overload

from opsq import _state
from opsq.app.task import Task
from opsq.exceptions import InvalidTaskError, NotRegistered

if TYPE_CHECKING:
    from opsq.app.base import App

P = ParamSpec("P")
R = TypeVar("R")


class TaskRegistry(dict[str, Task[..., Any]]):
    """Tasks by name. A name that is missing raises NotRegistered."""

    NotRegistered = NotRegistered

    def __missing__(self, name: str) -> Task[..., Any]:
        raise NotRegistered(name)

    def register(self, task: Any) -> None:
        """Add a task, or a task class, under its name."""
        task = task() if inspect.isclass(task) else task
        if not task.name:
            raise InvalidTaskError(f"cannot register {type(task).__name__}", why="it has no name")
        self[task.name] = task

    def unregister(self, name: Any) -> None:
        """Forget a task, by name or itself. Raises NotRegistered."""
        if self.pop(getattr(name, "name", name), None) is None:
            raise NotRegistered(name)


@overload
def shared_task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def shared_task(*, bind: Literal[True], **options: Any) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...
@overload
def shared_task(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def shared_task(*args: Any, **options: Any) -> Any:
    """Make a task of a function for whatever app is current when it is used: for libraries, and Django's apps."""
    if len(args) == 1 and callable(args[0]):
        return _share(args[0], options)
    if args:
        raise TypeError("@shared_task takes a function, or options by keyword")
    return lambda function: _share(function, options)


def _share(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    def register(app: App) -> Task[..., Any]:
        return app.task_from_function(function, **options)

    def find() -> Task[..., Any]:
        app: App = _state.get_current_app()
        return app.tasks[options.get("name") or app.gen_task_name(function.__name__, function.__module__)]

    _state.on_app_finalizers.add(register)
    proxy = _state.Proxy(find)
    proxy.__dict__["__doc__"] = function.__doc__
    return proxy
