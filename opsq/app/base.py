"""App (Celery): names, wires and finalizes its parts. What the parts do is in the modules beside it."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, overload

from opsq import _state, canvas
from opsq._state import current_app as current_app
from opsq._state import current_task as current_task
from opsq.app import autodiscover, many, periodic
from opsq.app.absent import ABSENT
from opsq.app.annotations import annotate
from opsq.app.autoretry import add_autoretry
from opsq.app.blame import broken
from opsq.app.builtins import add_builtins
from opsq.app.configured import Configured
from opsq.app.following import CanvasFollowing
from opsq.app.models import Models, WithModels
from opsq.app.preparing import ignores_result
from opsq.app.publisher import Publisher
from opsq.app.registry import TaskRegistry
from opsq.app.registry import shared_task as shared_task
from opsq.app.task import KEYS, Task
from opsq.exceptions import AlwaysEagerIgnored, DuplicateTaskNameWarning, OpsqError
from opsq.result.groups import GroupResult
from opsq.result.of_app import belonging
from opsq.result.sets import ResultSet
from opsq.result.single import AsyncResult
from opsq.signals import Signal, import_modules

if TYPE_CHECKING:
    from opsq.app.connection import Connection, Pool
    from opsq.app.control import Control
    from opsq.app.events import Events

P = ParamSpec("P")
R = TypeVar("R")


class App(Configured):
    """A program's tasks, its settings, and the way to its broker and results. `Celery` is another name for it.

    `main` is the name of the module that is run as a script: its tasks are called after it. Further keywords are
    settings by their new names. Nothing is imported, read or connected before it is needed.
    """

    task_cls: type[Task[..., Any]] | str = Task

    def __init__(
        self,
        main: str | None = None,
        *,
        broker: str | None = None,
        backend: str | None = None,
        include: Iterable[str] | None = None,
        config_source: Any = None,
        namespace: str | None = None,
        set_as_current: bool = True,
        changes: Mapping[str, Any] | None = None,
        task_cls: type[Task[..., Any]] | str | None = None,
        autofinalize: bool = True,
        strict_typing: bool = True,
        tasks: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        named = {"broker_url": broker, "result_backend": backend, "include": include}
        said = {name: value for name, value in named.items() if value is not None}
        super().__init__(config_source, namespace, {**(changes or {}), **said, **settings})
        self.main = main
        self.autofinalize, self.strict_typing = autofinalize, strict_typing
        self.task_cls = task_cls or self.task_cls
        self.finalized = False
        self._registry = TaskRegistry(tasks or {})
        self._borrowed: set[str] = set()
        self._shared_seen: set[Callable[[Any], Any]] = set()
        self._packages: list[tuple[Any, str | None]] = []
        self._lock = threading.RLock()
        self.on_after_finalize = Signal(name="app.on_after_finalize")
        self.on_after_fork = Signal(name="app.on_after_fork")
        #: Entries of the schedule that were added by `add_periodic_task`, by name.
        self.periodic_tasks: dict[str, dict[str, Any]] = {}
        #: Options (click's) of the program's own for `worker`, `beat`, `events`, or all of them: `preload`.
        self.user_options: dict[str, set[Any]] = defaultdict(set)
        self.publisher = Publisher(self)
        #: What `autodiscover_tasks()` looks into when it is told no packages.
        self.default_packages: Callable[[], Iterable[str]] = tuple
        #: Given a task's function and whether it is `async def`: what a worker calls in its place.
        self.around_task: Callable[[Callable[..., Any], bool], Callable[..., Any]] | None = None
        if set_as_current:
            self.set_current()
        if os.environ.get("DJANGO_SETTINGS_MODULE"):
            importlib.import_module("opsq.contrib.django.fixup").install(
                self
            )  # upwards: apps find Django by themselves
        self.on_init()

    def on_init(self) -> None:
        """Called at the end of `__init__`; to be overridden."""

    def set_current(self) -> None:
        """Make this the current app of this thread."""
        _state.set_current_app(self)

    def set_default(self) -> None:
        """Make this the app of all threads that have none of their own."""
        _state.set_default_app(self)

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing has to be given back; for Celery's `with App() as app`."""

    def __getattr__(self, name: str) -> Any:
        """What Celery's app has and this one has not: the error says what to use."""
        if name in ABSENT:
            raise AttributeError(f"opsq's app has no {name!r}: {ABSENT[name]}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.main or '__main__'} at {id(self):#x}>"

    # -- tasks ------------------------------------------------------------------------------------------------------

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
            options["models"] = Models(self, name, function, pydantic_strict, pydantic_context, pydantic_dump_kwargs)
            run, bases = options["models"].wrapped(), [WithModels, *bases]
        members = {
            "app": self,
            "name": name,
            "run": run if bind else staticmethod(run),
            "bind": bind,
            "__doc__": function.__doc__,
            "__module__": function.__module__,
            "__wrapped__": function if bind else staticmethod(function),
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
        type(task).on_bound(self)

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
            add_builtins(self)
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
            for _receiver, answer in import_modules.send(self):
                if isinstance(answer, Exception):
                    raise answer
            for packages, related in list(self._packages):
                self._import_related(packages, related)
            for names in (self.conf.imports, self.conf.include):
                autodiscover.import_by_name(names)
        except OpsqError:
            raise
        except Exception as error:
            raise broken("cannot import the tasks", error) from error

    def _import_related(self, packages: Any, related: str | None) -> None:
        packages = self.default_packages if packages is None else packages
        found = packages() if callable(packages) else packages
        autodiscover.import_related([found] if isinstance(found, str) else found or (), related)

    def add_periodic_task(
        self,
        schedule: Any,
        sig: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        **opts: Any,
    ) -> str:
        """Add an entry to the schedule; returns its name.

        `sig`: a signature (its arguments follow `args`), a task or its name. `opts`: options of `apply_async`.
        """
        key, entry = periodic.entry_of(schedule, sig, args, kwargs or {}, name, opts)
        self.periodic_tasks[key] = entry
        return key

    # -- calls ------------------------------------------------------------------------------------------------------

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: Any = None,
        task_id: str | None = None,
        task_type: Any = None,
        add_to_parent: bool = True,
        **options: Any,
    ) -> AsyncResult:
        """Send a call of a task that need not be known here; options as `apply_async` has them."""
        if task_type is None:
            if self.conf.task_always_eager:
                warnings.warn(AlwaysEagerIgnored("task_always_eager has no effect on send_task"), stacklevel=2)
            task_type = self.task_named(name)
        if countdown is not None:
            options["countdown"] = countdown
        if eta is not None:
            options["eta"] = eta
        task_id = self.publisher.send(name, args, kwargs, task_id, task_type, options)
        result = self.AsyncResult(task_id, task_name=name)
        result.ignored = ignores_result(task_type, options)
        if add_to_parent:
            self.note_children((result,))
        return result

    def send_many(self, calls: Iterable[Any]) -> list[AsyncResult]:
        """Send many calls, some hundred in one round trip; returns their results in order.

        `calls`: each `(task or its name, args, kwargs, options)`, of which all but the first may be left out, or a
        signature of one task; also a generator: it is read as it is sent. Options are those of `apply_async`. Raises
        OperationalError, whose `sent` says how many calls had gone.
        """
        return many.send_many(self, calls)

    def note_children(self, results: Iterable[Any]) -> None:
        """Note what was sent as children of the task that a worker runs here, if one does."""
        parent = self.current_worker_task
        if parent is not None:
            for result in results:
                parent.add_trail(result)

    @cached_property
    def AsyncResult(self) -> type[AsyncResult]:
        """The class of this app's results: `app.AsyncResult(task_id)`."""
        return belonging(AsyncResult, self)

    def connection(self, *_url: Any, **_options: Any) -> Connection:
        """The broker, as far as programs ask kombu's connection about it."""
        from opsq.app.connection import Connection  # few programs ask for it

        return Connection(self.broker)

    connection_for_read = connection_for_write = connection_or_acquire = broker_connection = connection

    @property
    def pool(self) -> Pool:
        """Connections, to be acquired."""
        from opsq.app.connection import Pool

        return Pool(self.connection)

    @cached_property
    def events(self) -> Events:
        """How this program hears what workers tell, and tells something itself."""
        from opsq.app.events import Events

        return Events(self)

    @cached_property
    def control(self) -> Control:
        """How this program speaks to workers."""
        from opsq.app.control import Control  # few programs do

        return Control(self)

    def sender_of_group(self, name: str, task: Any, options: Mapping[str, Any]) -> Any:
        """What sends the members of a group that are calls of one task; None if each has to be sent by itself."""
        return many.sender_of_group(self, name, task, options)

    @cached_property
    def GroupResult(self) -> type[GroupResult]:
        """The class of this app's results of groups: `app.GroupResult(id, results)`, `app.GroupResult.restore(id)`."""
        return belonging(GroupResult, self)

    @cached_property
    def ResultSet(self) -> type[ResultSet]:
        """The class of this app's results that are waited for together."""
        return belonging(ResultSet, self)

    def signature(self, *args: Any, **kwargs: Any) -> Any:
        """A call of a task of this app as data."""
        return canvas.signature(*args, **{"app": self, **kwargs})

    subtask = signature

    @cached_property
    def following(self) -> CanvasFollowing:
        """What sends that which follows a task."""
        return CanvasFollowing(self)

    @property
    def current_worker_task(self) -> Any:
        """The task that a worker runs here, or None."""
        return _state.get_current_worker_task()

    @property
    def current_task(self) -> Any:
        """The task that runs here, or None."""
        return _state.get_current_task()

    # -- command line -----------------------------------------------------------------------------------------------

    def start(self, argv: list[str] | None = None) -> int:
        """Run the command line for this app; returns its exit code."""
        self.set_current()
        face = importlib.import_module("opsq.cli.main")  # the one arrow upwards: Celery's programs need it
        code: int = face.run_for_app(self, argv)
        return code

    def worker_main(self, argv: list[str] | None = None) -> int:
        """Run `opsq worker` with these arguments for this app."""
        words = list(sys.argv[1:] if argv is None else argv)
        return self.start(words if "worker" in words else ["worker", *words])


Celery = App


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


_state.default_app_factory = lambda: App("default", set_as_current=False)
