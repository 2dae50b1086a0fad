"""AsyncResult: a task's result by its id, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from opsq import _state, states
from opsq.exceptions import TimeoutError
from opsq.result.graph import Trees
from opsq.result.of_app import OfApp, app_for, plain
from opsq.result.raising import throw
from opsq.result.waiting import assert_will_not_block, beside, ended
from opsq.utils.time import parse_iso


class ResultBase(OfApp):
    """What all results are."""

    #: The result before this one in a chain.
    parent: Any = None


class AsyncResult(Trees, ResultBase):
    """Ask for the state of a task, wait for its value."""

    TimeoutError = TimeoutError

    def __init__(
        self, id: str, backend: Any = None, task_name: str | None = None, app: Any = None, parent: Any = None
    ) -> None:
        if id is None:
            raise ValueError(f"AsyncResult requires valid id, not {type(id)}")
        self.id = id
        self.app = app_for(type(self), app)
        self.parent = parent
        self.task_name = task_name
        #: True: the caller wants no result, `get()` returns None at once.
        self.ignored = False
        self._backend = backend
        self._cache: dict[str, Any] | None = None
        self._then: list[tuple[Callable[..., Any], Callable[..., Any] | None]] = []

    @property
    def backend(self) -> Any:
        """Where the result is kept."""
        return self._backend if self._backend is not None else self.app.backend

    # -- waiting -------------------------------------------------------------------------------------------------------

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,  # noqa: ARG002 (Celery's signature)
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
        EXCEPTION_STATES: frozenset[str] = states.EXCEPTION_STATES,  # noqa: ARG002
        PROPAGATE_STATES: frozenset[str] = states.PROPAGATE_STATES,
    ) -> Any:
        """Wait until the task has ended; its value, or its error is raised (`propagate`) or returned.

        Raises TimeoutError after `timeout` seconds; the task goes on.
        """
        if self.ignored:
            return None
        if disable_sync_subtasks:
            assert_will_not_block()
        follows = follow_parents and propagate and self.parent is not None
        check = self._parents_check(on_interval) if follows else on_interval
        if self._cache is None:
            meta = self.backend.wait((self.id,), timeout, on_message, check, interval)[self.id]
            self._keep(meta)
            if follows and meta["status"] in PROPAGATE_STATES:
                self._throw_of_parents()
        return self._value(propagate, callback, PROPAGATE_STATES)

    wait = get

    async def aget(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        follow_parents: bool = True,
        disable_sync_subtasks: bool = True,
    ) -> Any:
        """`get` for an event loop, which goes on meanwhile; however many wait, they share one connection.

        Raises TimeoutError after `timeout` seconds; the task goes on.
        """
        if self.ignored:
            return None
        if disable_sync_subtasks:
            assert_will_not_block()
        if self._cache is None:
            follows = follow_parents and propagate and self.parent is not None
            check = await beside(self.backend)(self._parents_check, None) if follows else None
            meta = await ended(self.backend, self.id, timeout, check, interval)
            self._keep(meta)
            if follows and meta["status"] in states.PROPAGATE_STATES:
                await beside(self.backend)(self._throw_of_parents)
        return self._value(propagate, None)

    def _parents_check(self, on_interval: Callable[[], Any] | None) -> Callable[[], None]:
        """An error of an earlier task of the chain is raised here: this one would never come."""

        def check() -> None:
            self._throw_of_parents()
            if on_interval is not None:
                on_interval()

        check()
        return check

    def _throw_of_parents(self) -> None:
        """Raise the error of an earlier task: what went wrong, where this one's may only say that something did."""
        parent = self.parent
        while parent is not None:
            parent.maybe_throw()
            parent = parent.parent

    def _value(
        self, propagate: bool, callback: Callable[[str, Any], Any] | None, raised: frozenset[str] | None = None
    ) -> Any:
        meta = self._meta()
        value = meta["result"]
        if propagate and meta["status"] in (states.PROPAGATE_STATES if raised is None else raised):
            throw(value, meta.get("traceback"))
        if callback is not None:
            callback(self.id, value)
        return value

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> Any:
        """Raise the task's error if it has failed; else what is known as its result."""
        return self._value(propagate, callback)

    maybe_reraise = maybe_throw

    def then(
        self,
        callback: Callable[..., Any],
        on_error: Callable[..., Any] | None = None,
        weak: bool = False,  # noqa: ARG002
    ) -> AsyncResult:
        """Call `callback(result)` once this object knows that the task has ended."""
        self._then.append((callback, on_error))
        if self._cache is not None:
            self._call_back()
        return self

    def _call_back(self) -> None:
        waiting, self._then = self._then, []
        for callback, on_error in waiting:
            chosen = on_error if self.failed() and on_error is not None else callback
            chosen(self)

    # -- ending it ----------------------------------------------------------------------------------------------------

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: Any = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Have the task not run; with `terminate` end it if it runs, by `signal`. `wait` for replies of workers."""
        how = {"connection": connection, "terminate": terminate, "signal": signal}
        self.app.control.revoke(self.id, **how, reply=wait, timeout=timeout)

    def revoke_by_stamped_headers(
        self,
        headers: Any,
        connection: Any = None,
        terminate: bool = False,
        signal: Any = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """The same for all tasks that carry one of these stamps."""
        how = {"connection": connection, "terminate": terminate, "signal": signal}
        self.app.control.revoke_by_stamped_headers(headers, **how, reply=wait, timeout=timeout)

    # -- what is known -------------------------------------------------------------------------------------------------

    def _meta(self) -> dict[str, Any]:
        if self._cache is not None:
            return self._cache
        meta: dict[str, Any] = self.backend.get_meta(self.id)
        if meta["status"] in states.READY_STATES:
            self._keep(meta)
        return meta

    def _keep(self, meta: dict[str, Any]) -> None:
        meta["children"] = results_of(meta.get("children"), self.app)
        self._cache = meta
        self._call_back()

    @property
    def is_known(self) -> bool:
        """Whether this object knows how the task has ended: it is not asked for again."""
        return self._cache is not None

    def learn(self, meta: dict[str, Any] | None) -> None:
        """Take what is known of the task from somebody who has asked for it."""
        if meta is not None and self._cache is None and meta["status"] in states.READY_STATES:
            self._keep(meta)

    def known(self) -> dict[str, Any]:
        """The record of a task that has ended."""
        return self._meta()

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        """Whether it has ended well."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Whether it has ended with an error."""
        return self.state == states.FAILURE

    def exists(self) -> bool:
        """Whether anything is stored: tells a pending task from one that is not known."""
        return bool(self.backend.exists(self.id))

    @property
    def state(self) -> str:
        """PENDING (nothing is known), STARTED, RETRY, SUCCESS, FAILURE, REVOKED, or one of the program's own."""
        return str(self._meta()["status"])

    status = state

    @property
    def result(self) -> Any:
        """The value, or the error, or the data of a state of the program's own."""
        return self._meta()["result"]

    info = result

    @property
    def traceback(self) -> str | None:
        """The traceback of a failed task."""
        return self._meta().get("traceback")

    @property
    def children(self) -> list[Any] | None:
        """The tasks, and groups of tasks, that this one has started."""
        meta = self._meta()
        found = meta.get("children")
        return found if meta is self._cache else results_of(found, self.app)

    @property
    def date_done(self) -> datetime | None:
        """When it has ended."""
        done = self._meta().get("date_done")
        return parse_iso(done) if isinstance(done, str) else done

    @property
    def name(self) -> str | None:
        """The task's name, with `result_extended`."""
        return self._meta().get("name") or self.task_name

    @property
    def args(self) -> Any:
        """Its arguments, with `result_extended`."""
        return self._meta().get("args")

    @property
    def kwargs(self) -> Any:
        """Its keyword arguments, with `result_extended`."""
        return self._meta().get("kwargs")

    @property
    def worker(self) -> str | None:
        """The worker that ran it, with `result_extended`."""
        return self._meta().get("worker")

    @property
    def retries(self) -> int | None:
        """How often it was retried, with `result_extended`."""
        return self._meta().get("retries")

    @property
    def queue(self) -> str | None:
        """The queue that it came from, with `result_extended`."""
        return self._meta().get("queue")

    @property
    def task_id(self) -> str:
        """The id."""
        return self.id

    # -- itself ------------------------------------------------------------------------------------------------------

    def as_tuple(self) -> tuple[tuple[str, Any], None]:
        """As it stands in records: id and parent."""
        return (self.id, self.parent.as_tuple() if self.parent is not None else None), None

    def as_list(self) -> list[str]:
        """The ids of this one and its parents."""
        return [self.id, *(self.parent.as_list() if self.parent is not None else ())]

    def forget(self) -> None:
        """Remove the result, and those of its parents."""
        self._cache = None
        if self.parent is not None:
            self.parent.forget()
        self.backend.forget(self.id)

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return other.id == self.id
        return other == self.id if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        return plain(type(self)), (self.id, None, self.task_name, None, self.parent)


def results_of(stored: Any, app: Any) -> list[Any] | None:
    """The results that a record lists."""
    return None if stored is None else [result_from_tuple(item, app) for item in stored]


def result_from_tuple(stored: Any, app: Any = None) -> Any:
    """The result, or the group of results, that `as_tuple` stands for."""
    if isinstance(stored, ResultBase):
        return stored
    app = app if app is not None else _state.get_current_app()
    identity, nodes = stored
    own_id, before = identity if isinstance(identity, list | tuple) else (identity, None)
    parent = result_from_tuple(before, app) if before else None
    if nodes is None:
        return AsyncResult(own_id, app=app, parent=parent)
    return app.GroupResult(own_id, [result_from_tuple(node, app) for node in nodes], parent=parent)
