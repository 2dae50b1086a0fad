"""App (Celery): names and wires its parts. What the parts do is in the modules beside it."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from opsq import _state, canvas
from opsq._state import current_app as current_app
from opsq._state import current_task as current_task
from opsq.app import many, periodic
from opsq.app.absent import ABSENT
from opsq.app.following import CanvasFollowing
from opsq.app.preparing import ignores_result
from opsq.app.publisher import Publisher
from opsq.app.registry import shared_task as shared_task
from opsq.app.task import Task
from opsq.app.tasks import WithTasks
from opsq.exceptions import AlwaysEagerIgnored
from opsq.result.groups import GroupResult
from opsq.result.of_app import belonging
from opsq.result.sets import ResultSet
from opsq.result.single import AsyncResult
from opsq.signals import Signal

if TYPE_CHECKING:
    from opsq.app.connection import Connection, Pool
    from opsq.app.control import Control
    from opsq.app.events import Events


class App(WithTasks):
    """A program's tasks, its settings, and the way to its broker and results. `Celery` is another name for it.

    `main` is the name of the module that is run as a script: its tasks are called after it. Further keywords are
    settings by their new names. Nothing is imported, read or connected before it is needed.
    """

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
        given = {**(changes or {}), **said, **settings}
        super().__init__(config_source, namespace, given, main, task_cls or self.task_cls, tasks or {}, autofinalize)
        self.strict_typing = strict_typing
        self.on_after_fork = Signal(name="app.on_after_fork")
        #: Entries of the schedule that were added by `add_periodic_task`, by name.
        self.periodic_tasks: dict[str, dict[str, Any]] = {}
        #: Options (click's) of the program's own for `worker`, `beat`, `events`, or all of them: `preload`.
        self.user_options: dict[str, set[Any]] = defaultdict(set)
        self.publisher = Publisher(self)
        if set_as_current:
            self.set_current()
        if os.environ.get("DJANGO_SETTINGS_MODULE"):
            # Upwards: apps find Django by themselves.
            importlib.import_module("opsq.contrib.django.fixup").install(self)
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

    def _show_periodic_tasks(self) -> None:
        """They stand in `beat_schedule` too, where programs look for them."""
        entries = self.conf.beat_schedule
        if isinstance(entries, dict):
            entries.update(self.periodic_tasks)

    def _settings_are_loaded(self) -> None:
        self._show_periodic_tasks()
        super()._settings_are_loaded()

    # -- calls ------------------------------------------------------------------------------------------------------

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
        if self.conf.is_loaded:
            self._show_periodic_tasks()
        return key

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

_state.default_app_factory = lambda: App("default", set_as_current=False)
