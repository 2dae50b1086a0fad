"""ResultSet: results that are waited for together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from opsq import _state, states
from opsq.result.of_app import plain
from opsq.result.raising import throw
from opsq.result.single import AsyncResult, ResultBase
from opsq.result.waiting import assert_will_not_block


class ResultSet(ResultBase):
    """Results of several tasks; some of them may be sets themselves."""

    def __init__(self, results: Iterable[Any], app: Any = None, **_options: Any) -> None:
        self.results = list(results)
        self._app = app if app is not None else self.own_app

    @property
    def app(self) -> Any:
        """The app that the results are of."""
        if self._app is None:
            self._app = self.results[0].app if self.results else _state.get_current_app()
        return self._app

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app if app is not None else self.own_app

    @property
    def backend(self) -> Any:
        """Where the results are kept."""
        return self.app.backend

    # -- what is in it ----------------------------------------------------------------------------------------------

    def add(self, result: Any) -> None:
        """Add a result, unless it is in it already."""
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: Any) -> None:
        """Take a result out, by itself or its id. Raises KeyError."""
        try:
            self.results.remove(self.app.AsyncResult(result) if isinstance(result, str) else result)
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: Any) -> None:
        """Take a result out, if it is in it."""
        if result in self.results:
            self.results.remove(result)

    def update(self, results: Iterable[Any]) -> None:
        """Add those that are not in it."""
        for result in results:
            self.add(result)

    def clear(self) -> None:
        """Take all out."""
        self.results.clear()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, index: int) -> Any:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    # -- what is known ----------------------------------------------------------------------------------------------

    def successful(self) -> bool:
        """Whether all have ended well."""
        return all(state == states.SUCCESS for state in self._states())

    def failed(self) -> bool:
        """Whether one has failed."""
        return states.FAILURE in self._states()

    def waiting(self) -> bool:
        """Whether one has not ended."""
        return not self.ready()

    def ready(self) -> bool:
        """Whether all have ended."""
        return all(state in states.READY_STATES for state in self._states())

    def completed_count(self) -> int:
        """How many have ended well."""
        return self._states().count(states.SUCCESS)

    def _states(self) -> list[str]:
        """The state of each, asked for in one round trip; of a set in it what all of its results come to."""
        self._look_up()
        return [self._state(result) for result in self.results]

    def _look_up(self) -> None:
        """Learn what is known of those that are not known to have ended."""
        unknown = [each for each in self.results if isinstance(each, AsyncResult) and not each.is_known]
        if unknown:
            found = self.backend.get_metas([each.id for each in unknown])
            for each in unknown:
                each.learn(found.get(each.id))

    @staticmethod
    def _state(result: Any) -> str:
        if isinstance(result, ResultSet):
            found = result._states()
            if states.FAILURE in found:
                return states.FAILURE
            return states.SUCCESS if all(state == states.SUCCESS for state in found) else states.PENDING
        return str(result.known()["status"]) if result.is_known else states.PENDING

    def maybe_throw(self, callback: Callable[[str, Any], Any] | None = None, propagate: bool = True) -> None:
        """Raise the error of one that has failed."""
        self._look_up()
        for result in self.results:
            if isinstance(result, ResultSet) or result.is_known:
                result.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    # -- waiting ----------------------------------------------------------------------------------------------------

    def get(self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5, **options: Any) -> Any:
        """Wait for all; their values in order. With `callback(id, value)` each goes to it as it comes.

        Raises the first error that comes (`propagate`), or TimeoutError after `timeout` seconds.
        """
        return self.join_native(timeout, propagate, interval, **options)

    async def aget(self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5) -> list[Any]:
        """`get` for an event loop, which goes on meanwhile: their values in order."""
        import asyncio  # programs without an event loop do not pay for it

        awaited = [asyncio.ensure_future(each.aget(timeout, propagate, interval)) for each in self.results]
        try:
            return list(await asyncio.gather(*awaited))
        finally:
            for each in awaited:
                each.cancel()

    def join(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,  # noqa: ARG002 (Celery's signature)
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> list[Any]:
        """The same, one after the other: what is raised is the error of the first that has failed in order."""
        if disable_sync_subtasks:
            assert_will_not_block()
        until = None if timeout is None else time.monotonic() + timeout
        values = []
        for result in self.results:
            left = None if until is None else max(until - time.monotonic(), 0.0)
            how = {"disable_sync_subtasks": False, "on_message": on_message, "on_interval": on_interval}
            value = result.get(timeout=left, propagate=propagate, interval=interval, **how)
            if callback is None:
                values.append(value)
            else:
                callback(result.id, value)
        return values

    def join_native(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[Any] | None:
        """Wait for all at once, over one connection."""
        if disable_sync_subtasks:
            assert_will_not_block()
        until = None if timeout is None else time.monotonic() + timeout
        values: dict[str, Any] = {}
        for task_id, meta in self.iter_native(timeout, interval, no_ack, on_message, on_interval):
            if isinstance(meta, ResultSet):
                left = None if until is None else max(until - time.monotonic(), 0.0)
                value = meta.join_native(left, propagate, interval, disable_sync_subtasks=False)
            else:
                value = meta["result"]
                if propagate and meta["status"] in states.PROPAGATE_STATES:
                    throw(value, meta.get("traceback"))
            if callback is None:
                values[task_id] = value
            else:
                callback(task_id, value)
        return [values[result.id] for result in self.results] if callback is None else None

    def iter_native(
        self,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,  # noqa: ARG002
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Id and record of each as it ends; of a set in it the set itself, at once. Raises TimeoutError."""
        single: dict[str, AsyncResult] = {}
        for result in self.results:
            if not isinstance(result, AsyncResult):
                yield result.id, result
            elif result.is_known:
                yield result.id, result.known()
            else:
                single[result.id] = result
        if single:
            for task_id, meta in self.backend.wait_each(tuple(single), timeout, on_message, on_interval, interval):
                single[task_id].learn(meta)
                yield task_id, single[task_id].known()

    def iterate(self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5) -> Iterator[Any]:
        """The values as they come, in no order."""
        for _task_id, meta in self.iter_native(timeout, interval):
            if isinstance(meta, ResultSet):
                yield meta.get(timeout, propagate)
                continue
            if propagate and meta["status"] in states.PROPAGATE_STATES:
                throw(meta["result"], meta.get("traceback"))
            yield meta["result"]

    def then(
        self,
        callback: Callable[..., Any],
        on_error: Callable[..., Any] | None = None,
        weak: bool = False,  # noqa: ARG002
    ) -> ResultSet:
        """Call `callback(self)` once this object knows that all have ended."""
        left = len(self.results)

        def one_has_ended(_result: Any) -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                chosen = on_error if on_error is not None and self.failed() else callback
                chosen(self)

        if not self.results:
            callback(self)
        for result in self.results:
            result.then(one_has_ended)
        return self

    # -- all of them ------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Remove all the results."""
        for result in self.results:
            result.forget()

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: Any = "SIGTERM",
        wait: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Revoke all the tasks."""
        return self.app.control.revoke(
            self.task_ids(), connection=connection, timeout=timeout, terminate=terminate, signal=signal, reply=wait
        )

    def task_ids(self) -> list[str]:
        """The ids of all tasks, those of sets in it too."""
        found: list[str] = []
        for result in self.results:
            found += result.task_ids() if isinstance(result, ResultSet) else [result.id]
        return found

    @property
    def supports_native_join(self) -> bool:
        """Whether `join_native` can be used: it can."""
        return True

    def __eq__(self, other: object) -> bool:
        return other.results == self.results if isinstance(other, ResultSet) else NotImplemented

    def __hash__(self) -> int:
        return id(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return plain(type(self)), (self.results,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(result.id for result in self.results)}]>"
