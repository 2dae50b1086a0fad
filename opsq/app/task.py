"""Task: what a decorated function becomes. Calls are handed to the app's publisher, eager ones to the engine."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar

from opsq import _state
from opsq.app import eager, progress
from opsq.app.signatures import argument_check, parameters_of
from opsq.app.workflows import Workflows
from opsq.exceptions import MaxRetriesExceededError, OperationalError, Retry
from opsq.execution.context import Context
from opsq.execution.request import Request
from opsq.result.eager import EagerResult
from opsq.result.single import AsyncResult
from opsq.runtime.aside import aside

if TYPE_CHECKING:
    from opsq.app.base import App

P = ParamSpec("P")
R = TypeVar("R")
Item = TypeVar("Item")

#: Options of a call that may stand on the task as attributes.
CALL_OPTIONS = (
    "queue",
    "routing_key",
    "exchange",
    "priority",
    "expires",
    "serializer",
    "compression",
    "time_limit",
    "soft_time_limit",
    "debounce",
)
#: Options that may be functions of a call's arguments.
KEYS = frozenset(("rate_limit_key", "concurrency_key"))


class FromSettings:
    """An attribute that says what a setting says, until the task says something itself.

    Where the setting says nothing, it is what the attribute `follows` is.
    """

    def __init__(self, setting: str, follows: str = "") -> None:
        self.setting, self.follows = setting, follows

    def __get__(self, task: Any, owner: Any) -> Any:
        app = owner.app
        value = getattr(app.conf, self.setting) if app is not None else None
        return getattr(owner if task is None else task, self.follows) if value is None and self.follows else value


class _CurrentApp:
    """The app of a task class that is bound to none."""

    def __get__(self, task: Any, owner: Any) -> Any:
        return _state.get_current_app()


class Task(Workflows, Generic[P, R]):
    """One kind of work: a name, a function (`run`), and how it is called, retried and acknowledged.

    Attributes have Celery's names and meanings; those that are not set follow the settings.
    """

    MaxRetriesExceededError = MaxRetriesExceededError
    OperationalError = OperationalError

    app: ClassVar[Any] = _CurrentApp()
    name: str = ""
    #: Check the arguments at the call.
    typing: ClassVar[Any] = None
    max_retries: int | None = 3
    #: Seconds.
    default_retry_delay: float = 180
    throws: tuple[type[BaseException], ...] = ()
    trail = True
    send_events = True
    expires: Any = None
    #: Its results are cut after so many characters where they are shown: in the worker's lines and in events.
    resultrepr_maxsize = 1024
    #: The class of its requests, itself or as `module:Class`: told of what becomes of each.
    Request: ClassVar[Any] = Request
    bind = False
    abstract = True
    #: While a call waits or runs, another one with the same key is not sent, and gets its handle. The key: True = all
    #: arguments, a text with their names in braces, or a function of them.
    unique: ClassVar[Any] = False
    #: Seconds after which the key is free at the latest.
    unique_for: float = 86_400
    #: Seconds of quiet after which the last of several calls with the same key runs; None = each call runs.
    debounce: float | None = None

    queue: Any = None
    exchange: Any = None
    routing_key: Any = None
    compression: Any = None

    serializer: Any = FromSettings("task_serializer")
    rate_limit: Any = FromSettings("task_default_rate_limit")
    #: "worker" (each worker has the rate for itself, as in Celery) or "cluster".
    rate_limit_scope: Any = FromSettings("task_default_rate_limit_scope")
    #: A text with names of arguments in braces, or a function of them: each value has the limit for itself.
    rate_limit_key: Any = None
    #: How many run at once, everywhere; with `concurrency_key` for each of its values.
    max_concurrency: int | None = None
    concurrency_key: Any = None
    #: After so many failures in a row calls wait; or a dict of fail_max, reset_timeout, reset_timeout_max (seconds).
    circuit_breaker: Any = None
    priority: Any = FromSettings("task_default_priority")
    time_limit: Any = FromSettings("task_time_limit")
    soft_time_limit: Any = FromSettings("task_soft_time_limit")
    track_started: Any = FromSettings("task_track_started")
    acks_late: Any = FromSettings("task_acks_late")
    acks_on_failure_or_timeout: Any = FromSettings("task_acks_on_failure_or_timeout")
    acks_on_failure: Any = FromSettings("task_acks_on_failure", follows="acks_on_failure_or_timeout")
    acks_on_timeout: Any = FromSettings("task_acks_on_timeout", follows="acks_on_failure_or_timeout")
    reject_on_worker_lost: Any = FromSettings("task_reject_on_worker_lost")
    #: Celery's name alone: with `acks_late` what a lost child ran is delivered again, no retry is counted.
    retry_on_worker_lost: Any = FromSettings("task_retry_on_worker_lost")
    ignore_result: Any = FromSettings("task_ignore_result")
    store_eager_result: Any = FromSettings("task_store_eager_result")
    store_errors_even_if_ignored: Any = FromSettings("task_store_errors_even_if_ignored")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """An attribute that a class sets to None follows the settings again."""
        super().__init_subclass__(**kwargs)
        for name, value in list(vars(cls).items()):
            followed = vars(Task).get(name)
            if value is None and isinstance(followed, FromSettings):
                setattr(cls, name, followed)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The task's own code."""
        raise NotImplementedError("a task must define run()")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it here and now, as the function that it was."""
        running = _state.request_of(self)
        if running is not None and not running.called_directly and self._is_first_entry(running):
            return self.run(*args, **kwargs)  # type: ignore[no-any-return]
        token = _state.push_request(Context(task_object=self, args=args, kwargs=kwargs))
        try:
            return self.run(*args, **kwargs)  # type: ignore[no-any-return]
        finally:
            _state.pop_request(token)

    def _is_first_entry(self, running: Context) -> bool:
        """Whether this is the worker's own call, handed on by a `__call__` that the task's class overrides."""
        first = type(self).__call__ is not Task.__call__ and "entered" not in vars(running)
        vars(running)["entered"] = True
        return first

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult:
        """Send it with these arguments."""
        return self.apply_async(args, kwargs)

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult:
        """`delay` for an event loop, which goes on meanwhile however long the broker takes."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult:
        """`apply_async` for an event loop. A caller that is cancelled meanwhile may have sent the call all the same."""
        return await aside(self.apply_async, args, kwargs, **options)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,  # noqa: ARG002 (Celery's signature)
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult:
        """Send it with arguments and options: countdown, eta, expires, queue, priority, headers and all of Celery's."""
        if self.checks_arguments:
            self.check_arguments(*(args or ()), **(kwargs or {}))
        shadow = shadow or self.shadow_name(args, kwargs, options)
        if self.app.conf.task_always_eager:
            return eager.apply_as_sent(self, args, kwargs, task_id, {"link": link, "link_error": link_error, **options})
        for name, value in (("link", link), ("link_error", link_error), ("shadow", shadow)):
            if value is not None:
                options[name] = value
        result: AsyncResult = self.app.send_task(self.name, args, kwargs, task_id=task_id, task_type=self, **options)
        return result

    @cached_property
    def check_arguments(self) -> Callable[..., None]:
        """Raises TypeError for arguments that do not fit `run`."""
        return argument_check(type(self).run, bound=not isinstance(vars(type(self)).get("run"), staticmethod))

    @cached_property
    def parameters(self) -> inspect.Signature | None:
        """The parameters of `run`; None of a built-in function that does not tell."""
        return parameters_of(self.run)

    @cached_property
    def checks_arguments(self) -> bool:
        """Whether arguments are checked at the call."""
        return bool(self.app.strict_typing if self.typing is None else self.typing)

    @property
    def call_options(self) -> Mapping[str, Any]:
        """What the task itself says about its calls."""
        version = self.app.conf.version
        if vars(self).get("_options_version") != version:
            if not self.app.finalized and self.app.conf.task_annotations:
                self.app.finalize(auto=True)  # they are put on the tasks then
            found = {name: value for name in CALL_OPTIONS if (value := getattr(self, name)) is not None}
            found["ignore_result"] = bool(self.ignore_result)
            vars(self).update(_options=found, _options_version=version)
        options: Mapping[str, Any] = vars(self)["_options"]
        return options

    def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str | None:  # noqa: ARG002 (to be overridden)
        """Another name for logs and monitors."""
        return None

    # -- in a running task ------------------------------------------------------------------------------------------

    @property
    def request(self) -> Context:
        """What this run is told about itself; outside of a run, defaults."""
        found: Context | None = _state.request_of(self)
        return Context() if found is None else found

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: Any = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Have it run again later; raises Retry, which the worker understands (`raise self.retry(...)`).

        When it has been tried often enough, `exc` is raised, or MaxRetriesExceededError.
        """
        request = self.request
        if request.called_directly:
            raise _cause_or(exc or Retry("Task can be retried", None))
        retries = request.retries + 1
        most = self.max_retries if max_retries is None else max_retries
        if most is not None and retries > most:
            raise _cause_or(exc) if exc else self._used_up(request, args, kwargs)
        if not eta and countdown is None:
            countdown = self.default_retry_delay
        retry = Retry(exc=exc, when=eta or countdown, is_eager=request.is_eager)
        given = {"args": args, "kwargs": kwargs, "eta": eta, "countdown": countdown}
        retry.call = {**{name: value for name, value in given.items() if value is not None}, **options}
        if throw:
            raise retry
        self.app.publisher.send_again(request, retry)
        return retry

    def _used_up(self, request: Context, args: Any, kwargs: Any) -> BaseException:
        args = tuple(request.args if args is None else args)
        kwargs = request.kwargs if kwargs is None else kwargs
        text = f"Can't retry {self.name}[{request.id}] args:{args} kwargs:{kwargs}"
        return self.MaxRetriesExceededError(text, task_args=args, task_kwargs=kwargs)

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None, **kwargs: Any
    ) -> None:
        """Store a state of this run with some data, for those who wait and watch."""
        request = self.request
        self.backend.store(task_id or request.id, state, meta, request=request, **kwargs)

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Tell how far this run is: state PROGRESS with `current`, `total` and `note`; `opsq tasks --watch` draws it.

        May be called as often as one likes: what is told within a fifth of a second of the last time is passed by.
        """
        progress.tell(self, self.request, done, total, note)

    def track(self, items: Iterable[Item], total: float | None = None, note: str | None = None) -> Iterator[Item]:
        """The items, for a loop, while `progress` is told; `total` is their number where they have one."""
        return progress.track(self, self.request, items, total, note)

    def send_event(self, type: str, **fields: Any) -> None:
        """Tell an event of the program's own, of this run, to who listens now."""
        self.app.events.default_dispatcher().send(type, uuid=self.request.id, **fields)

    def push_request(self, *args: Any, **kwargs: Any) -> None:
        """Have the task believe that it runs with such a request, until `pop_request`: for tests of bound tasks."""
        request = Context(*args, **{"task_object": self, "called_directly": False, **kwargs})
        vars(self).setdefault("_pushed", []).append(_state.push_request(request))

    def pop_request(self) -> None:
        """End what `push_request` began."""
        _state.pop_request(vars(self)["_pushed"].pop())

    def add_trail(self, result: Any) -> Any:
        """Note a task that this run has started."""
        if self.trail:
            vars(self.request).setdefault("children", []).append(result)
        return result

    # -- elsewhere --------------------------------------------------------------------------------------------------

    def apply(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> EagerResult:
        """Run it here, as a worker would, and wait; with `throw` its errors are raised here."""
        return eager.apply(self, args or (), kwargs or {}, options)

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AsyncResult:
        """The result of an earlier call."""
        return self.app.AsyncResult(task_id, **{"task_name": self.name, **kwargs})  # type: ignore[no-any-return]

    @property
    def backend(self) -> Any:
        """Where its results are kept."""
        return self.app.backend

    @classmethod
    def on_bound(cls, app: App) -> None:
        """Called when the task becomes one of an app; to be overridden, as are the following."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Called in the worker before it runs."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Called in the worker after it succeeded."""

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called in the worker when it is to be retried."""

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called in the worker after it failed."""

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called in the worker after it ended, however."""

    def __reduce__(self) -> Any:
        """Pickled by name: the receiver takes it from its own app."""
        return _unpickle_task, (self.name, type(self).__module__)

    def __repr__(self) -> str:
        return f"<@task: {self.name} of {getattr(self.app, 'main', None)}>"


def _unpickle_task(name: str, module: str) -> Any:
    if module not in sys.modules:
        __import__(module)
    return _state.get_current_app().tasks[name]


def _cause_or(error: BaseException) -> BaseException:
    """The error to raise; the one that is being handled stays visible as its cause."""
    handled = sys.exc_info()[1]
    if handled is not None and handled is not error:
        error.__cause__ = handled
    return error
