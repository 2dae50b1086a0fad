"""The tasks that every app has under Celery's names: workflows of Celery's clients and workers count on them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opsq.canvas import chord, chunks, group, maybe_signature, signature
from opsq.exceptions import ChordError, Retry
from opsq.execution import workflow
from opsq.result import allow_join_result, result_from_tuple

if TYPE_CHECKING:
    from opsq.app.base import App

logger = logging.getLogger("opsq.worker")


def add_builtins(app: App) -> None:
    """Make them tasks of an app."""
    _add_maps(app)
    _add_workflows(app)

    @app.task(name="celery.backend_cleanup", shared=False)
    def backend_cleanup() -> None:
        """Remove results that have expired; Redis does it by itself."""
        app.backend.cleanup()

    @app.task(name="celery.accumulate", shared=False)
    def accumulate(*args: Any, index: int | None = None) -> Any:
        return args if index is None else args[index]


def _add_maps(app: App) -> None:
    @app.task(name="celery.map", shared=False)
    def xmap(task: Mapping[str, Any], it: Iterable[Any]) -> list[Any]:
        call = signature(task, app=app).type
        return [call(item) for item in it]

    @app.task(name="celery.starmap", shared=False)
    def xstarmap(task: Mapping[str, Any], it: Iterable[Any]) -> list[Any]:
        call = signature(task, app=app).type
        return [call(*item) for item in it]

    @app.task(name="celery.chunks", shared=False)
    def send_chunks(task: Mapping[str, Any], it: Iterable[Any], n: int) -> Any:
        return chunks.apply_chunks(task, it, n, app=app).as_tuple()


def _add_workflows(app: App) -> None:
    @app.task(name="celery.chain", shared=False)
    def run_chain(*_args: Any, **_kwargs: Any) -> None:
        raise NotImplementedError("chain is not a real task")

    @app.task(name="celery.group", shared=False)
    def run_group(
        tasks: Sequence[Any], result: Any, group_id: str, partial_args: Sequence[Any], add_to_parent: bool = True
    ) -> Any:
        members = [maybe_signature(task, app=app) for task in tasks]
        group(members, app=app).apply_async(partial_args, task_id=group_id, add_to_parent=add_to_parent)
        return result

    @app.task(name="celery.chord", shared=False)
    def run_chord(header: Any, body: Any, partial_args: Sequence[Any] = (), **options: Any) -> Any:
        for name in ("interval", "max_retries", "eager"):
            options.pop(name, None)
        members = header["kwargs"]["tasks"] if isinstance(header, Mapping) else header
        whole = chord([maybe_signature(task, app=app) for task in members], maybe_signature(body, app=app), app=app)
        return whole.apply_async(partial_args, **options).as_tuple()

    @app.task(name="celery.chord_unlock", bind=True, shared=False, max_retries=None, ignore_result=True)
    def chord_unlock(
        self: Any,
        /,
        group_id: str,
        callback: Any,
        interval: float | None = None,
        max_retries: int | None = None,
        result: Sequence[Any] = (),
        **_options: Any,
    ) -> None:
        """The body of a chord whose parts are not counted: look whether they have ended, again and again."""
        header = app.GroupResult(group_id, [result_from_tuple(each, app) for each in result])
        body = maybe_signature(callback, app=app)
        try:
            if not header.ready():
                wait_s = app.conf.result_chord_retry_interval if interval is None else interval
                raise self.retry(countdown=wait_s, max_retries=max_retries)
            with allow_join_result():
                values = header.join(timeout=app.conf.result_chord_join_timeout)
        except Retry:
            raise
        except Exception as error:
            logger.exception("the chord %s has failed", group_id)
            app.following.send(workflow.fail_body(app.following, body, ChordError(repr(error)), app.tasks))
        else:
            body.delay(values)
