"""How an app comes to its tasks: made of functions, found in modules, shared by others, then bound to the settings."""

from __future__ import annotations

import importlib
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, cast, overload

from opsq import _state
from opsq.app import autodiscover
from opsq.app.annotations import annotate
from opsq.app.autoretry import add_autoretry
from opsq.app.blame import broken
from opsq.app.builtins import add_builtins
from opsq.app.configured import Configured
from opsq.app.loader import Loader
from opsq.app.models import Models, WithModels
from opsq.app.registry import TaskRegistry
from opsq.app.task import KEYS, Task
from opsq.exceptions import DuplicateTaskNameWarning, OpsqError
from opsq.signals import Signal, import_modules

if TYPE_CHECKING:
    from opsq.app.base import App

P = ParamSpec("P")
R = TypeVar("R")


class WithTasks(Configured):
    """The part of an app that is its tasks."""

    task_cls: type[Task[..., Any]] | str = Task

    def __init__(
        self,
        config_source: Any,
        namespace: str | None,
        given: Mapping[str, Any],
        main: str | None,
        task_cls: type[Task[..., Any]] | str,
        tasks: Mapping[str, Any],
        autofinalize: bool,
    ) -> None:
        """`main`: the module that is run as a script; `task_cls`: the class of tasks; `tasks`: those that are known.

        `autofinalize`: who looks at the tasks finalizes the app.
        """
        super().__init__(config_source, namespace, given)
        self.main, self.task_cls, self.autofinalize = main, task_cls, autofinalize
        self.finalized = False
        self._registry = TaskRegistry(tasks)
        self._borrowed: set[str] = set()
        self._shared_seen: set[Callable[[Any], Any]] = set()
        self._packages: list[tuple[Any, str | None]] = []
        self._lock = threading.RLock()
        self.on_after_finalize = Signal(name="app.on_after_finalize")
        #: What `autodiscover_tasks()` looks into when it is told no packages.
        self.default_packages: Callable[[], Iterable[str]] = tuple
        #: Called when the tasks were imported: takes in those that a framework defines in its own way.
        self.adopt_tasks: Callable[[], None] | None = None
        #: Called before tasks are imported.
        self.before_imports: Callable[[], None] = lambda: None
        #: Given a task's function and whether it is `async def`: what a worker calls in its place.
        self.around_task: Callable[[Callable[..., Any], bool], Callable[..., Any]] | None = None

    @property
    def _whole(self) -> App:
        """The app that this is a part of."""
        return cast("App", self)

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self, *, bind: Literal[True], **options: Any
    ) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...
    @overload
    def task(self, **options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    def task(self, *args: Any, **options: Any) -> Any:
        """Make a task of a function: `@app.task`, or `@app.task(bind=True, name=..., ...)`."""
        if args and not callable(args[0]):
            raise TypeError("argument 1 to @task() must be a callable")
        if len(args) > 1:
            raise TypeError(f"@task() takes exactly 1 argument ({len(args)} given)")
        return self._decorate(args[0], **options) if args else lambda function: self._decorate(function, **options)

    def _decorate(self, function: Callable[..., Any], shared: bool = True, filter: Any = None, **options: Any) -> Any:
        options.pop("lazy", None)  # Celery's word: tasks of opsq follow the settings at any time
        if shared:
            _state.on_app_finalizers.add(
                lambda app: app is self or app.task_from_function(function, borrowed=True, **options)
            )
        task = self.task_from_function(function, **options)
        return filter(task) if filter else task

    def task_from_function(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        base: type[Task[..., Any]] | None = None,
        bind: bool = False,
        borrowed: bool = False,
        pydantic: bool = False,
        pydantic_strict: bool = False,
        pydantic_context: Mapping[str, Any] | None = None,
        pydantic_dump_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Task[..., Any]:
        """The task of a function, under its name; made anew only if there is none yet, or only a borrowed one.

        `pydantic`: arguments that are annotated with models are validated and arrive as models.
        """
        name = name or self.gen_task_name(function.__name__, function.__module__)
        known = dict.get(self._registry, name)
        if known is not None and (borrowed or name not in self._borrowed):
            if not borrowed:
                _warn_if_another(known, function)
            return known
        run, bases = function, list[type[Any]]([base or self.Task])
        if pydantic:
            options["models"] = Models(
                self._whole, name, function, pydantic_strict, pydantic_context, pydantic_dump_kwargs
            )
            run, bases = options["models"].wrapped(), [WithModels, *bases]
        members = {
            "app": self,
            "name": name,
            "run": run if bind else staticmethod(run),
            "bind": bind,
            "__doc__": function.__doc__,
            "__module__": function.__module__,
            "__wrapped__": function if bind else staticmethod(function),
            "__name__": function.__name__,
            "__qualname__": function.__qualname__,
            **options,
        }
        for option in KEYS & options.keys():  # a function of the call's arguments is no method
            members[option] = staticmethod(options[option]) if callable(options[option]) else options[option]
        task: Task[..., Any] = type(function.__name__, tuple(bases), members)()
        (self._borrowed.add if borrowed else self._borrowed.discard)(name)
        self._registry[name] = task
        self._prepare(task)
        return task

    def register_task(self, task: Any, **options: Any) -> Task[..., Any]:
        """Add a task that is a class of the program's own."""
        made: Task[..., Any] = task() if isinstance(task, type) else task
        if not made.name:
            made.name = self.gen_task_name(type(made).__name__, type(made).__module__)
        type(made).app = self
        for name, value in options.items():
            setattr(made, name, value)
        self._registry[made.name] = made
        self._prepare(made)
        return made

    def _prepare(self, task: Task[..., Any]) -> None:
        add_autoretry(task)
        if self.finalized:
            annotate(task, self.conf.task_annotations)
        type(task).on_bound(self._whole)

    def gen_task_name(self, name: str, module: str | None) -> str:
        """The name of a task that has none of its own: its module's and its function's."""
        if module in (None, "__main__"):
            return f"{self.main or '__main__'}.{name}"
        return f"{module}.{name}"

    @cached_property
    def Task(self) -> type[Task[..., Any]]:
        """The base class of this app's tasks."""
        base = self.task_cls
        if isinstance(base, str):
            module, _, name = base.replace(":", ".").rpartition(".")
            base = getattr(importlib.import_module(module), name)
        return type("Task", (base,), {"app": self, "__module__": base.__module__})

    @property
    def tasks(self) -> TaskRegistry:
        """All tasks by name. Looking at them finalizes the app."""
        if not self.finalized:
            self.finalize(auto=True)
        elif len(self._shared_seen) != len(_state.on_app_finalizers):
            self._take_shared_tasks()
        return self._registry

    def task_named(self, name: str) -> Any:
        """The task of this name if it is known so far, else None; nothing is finalized or imported for it."""
        return dict.get(self._registry, name)

    def finalize(self, auto: bool = False) -> None:
        """Read the settings and take in the shared tasks."""
        with self._lock:
            if self.finalized:
                return
            if auto and not self.autofinalize:
                raise RuntimeError("Contract breach: app not finalized")
            self.finalized = True
            add_builtins(self._whole)
            self._take_shared_tasks()
            for task in list(self._registry.values()):
                annotate(task, self.conf.task_annotations)
            self.on_after_finalize.send(self)

    def _take_shared_tasks(self) -> None:
        for register in list(_state.on_app_finalizers - self._shared_seen):
            self._shared_seen.add(register)
            register(self)

    def autodiscover_tasks(
        self,
        packages: Iterable[str] | Callable[[], Iterable[str]] | None = None,
        related_name: str | None = "tasks",
        force: bool = False,
    ) -> None:
        """Import `<package>.tasks` of these packages when the app's tasks are imported, or at once with `force`.

        In a Django project all of INSTALLED_APPS when none are named.
        """
        self._packages.append((packages, related_name))
        if force:
            self._import_related(packages, related_name)

    def import_tasks(self) -> None:
        """Import every module that defines tasks, as a worker does when it starts. Raises UsageError."""
        try:
            self.before_imports()
            for _receiver, answer in import_modules.send(self):
                if isinstance(answer, Exception):
                    raise answer
            for packages, related in list(self._packages):
                self._import_related(packages, related)
            for names in (self.conf.imports, self.conf.include):
                autodiscover.import_by_name(names)
            if self.adopt_tasks is not None:
                self.adopt_tasks()
        except OpsqError:
            raise
        except Exception as error:
            raise broken("cannot import the tasks", error) from error

    @property
    def loader(self) -> Loader:
        """What imports the tasks, by Celery's word for it."""
        return Loader(self.import_tasks)

    def _import_related(self, packages: Any, related: str | None) -> None:
        packages = self.default_packages if packages is None else packages
        found = packages() if callable(packages) else packages
        autodiscover.import_related([found] if isinstance(found, str) else found or (), related)


def _warn_if_another(known: Task[..., Any], function: Callable[..., Any]) -> None:
    """Two functions under one name: the first one stays. The same function imported twice is no mistake."""
    first = getattr(known, "__wrapped__", None)
    first = getattr(first, "__func__", first)
    one, other = getattr(first, "__code__", None), getattr(function, "__code__", None)
    if (
        one is None
        or other is None
        or (one.co_filename, one.co_firstlineno) == (other.co_filename, other.co_firstlineno)
    ):
        return
    text = (
        f"two functions are tasks of the name {known.name!r}: the one in {one.co_filename} stays, give the other a name"
    )
    warnings.warn(DuplicateTaskNameWarning(text), stacklevel=4)
