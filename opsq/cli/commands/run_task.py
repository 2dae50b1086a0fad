"""What `opsq run task` does: send a call of a task, and wait for its value if that is wanted."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from opsq.app.discovery import named_app
from opsq.app.routes import Routes
from opsq.broker import queues, workers
from opsq.cli.context import Context
from opsq.exceptions import BrokerError, OpsqError, UsageError, did_you_mean


def run_task(
    context: Context,
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    wait: bool,
    timeout: float | None,
    queue: str | None,
    countdown: float | None,
) -> None:
    """Send the call; print its id, or with `wait` its value. Raises what the exit code says."""
    known = _checked(context, name)
    _check_arguments(known, args, kwargs)
    app = context.app
    if wait:
        _check_results(app, name, known)
    options: dict[str, Any] = {
        key: value for key, value in (("queue", queue), ("countdown", countdown)) if value is not None
    }
    call_options = {**(known.call_options if known is not None else {}), **options}
    place = Routes(app.conf).route(name, call_options, args, kwargs, known)
    result = app.send_task(name, list(args), dict(kwargs), task_type=known, **options)
    told = {"id": result.id, "task": name, "queue": place.shown}
    consumed = place.address is not None or _is_consumed(context, place.queue)
    if not wait:
        context.out.document(told) if context.out.json else context.out.line(result.id)
        if not consumed:
            context.out.say(f"no worker consumes the queue {place.queue!r} now")
        return
    if not context.out.json:
        context.out.say(result.id)
    if not consumed:
        raise BrokerError(
            f"cannot wait for {result.id}",
            why=f"no worker consumes the queue {place.queue!r}; the call stays there",
            hint="opsq up, or opsq worker -A APP",
        )
    _wait(context, result, told, timeout)


def _wait(context: Context, result: Any, told: dict[str, Any], timeout: float | None) -> None:
    """Print the value; an error of the task is told as this command's own."""
    value = result.get(timeout=timeout, propagate=False)
    state = result.state
    if state == "SUCCESS":
        context.out.document({**told, "state": state, "result": value} if context.out.json else value)
        return
    if result.traceback:
        print(result.traceback.rstrip(), file=sys.stderr)
    raise OpsqError(f"the task {told['task']} failed", why=f"{type(value).__name__}: {value}")


def _checked(context: Context, name: str) -> Any:
    """The task of that name, None if only workers know it. Raises UsageError with the nearest names."""
    app = context.app
    app.import_tasks()
    names, why = set(app.tasks), f"the app {app.main or context.app_spec!r} does not have it"
    if named_app(context.app_spec) is None:
        records = workers.live(context.broker)
        why = "no worker that is alive has it" if records else "opsq itself does not have it, and no worker is alive"
        names = {known for record in records for known in record["tasks"] or ()} or names
    if name in names:
        return app.tasks.get(name)
    hint = did_you_mean(name, names, "opsq tasks lists them; -A names the app", cutoff=0.4)
    raise UsageError(f"no task is called {name}", why=why, hint=hint)


def _check_arguments(known: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raises UsageError when the task, if it is known here, does not take these arguments."""
    if known is None or not known.checks_arguments:
        return
    try:
        known.check_arguments(*args, **kwargs)
    except TypeError as error:
        parameters = known.parameters
        raise UsageError(
            f"cannot call {known.name} so", why=str(error), hint=f"it takes {parameters}" if parameters else ""
        ) from None


def _check_results(app: Any, name: str, known: Any) -> None:
    """Raises when no value can come."""
    if not app.backend.keeps_results:
        app.backend.wait([name])
    if known is not None and known.ignore_result:
        raise UsageError(
            f"cannot wait for {name}", why="the task keeps no result (ignore_result)", hint="leave out --wait"
        )


def _is_consumed(context: Context, queue: str) -> bool:
    """Whether a worker takes from the queue: one of ours by its lease, one of Celery's by what it does just now.

    A worker whose only child was lost has no consumer until the next one has started, and takes from it all the same.
    """
    broker = context.broker
    if queues.states(broker, [queue])[0].consumers:
        return True
    return bool(workers.serving(workers.live(broker), queue)) or workers.celery_waits(broker)
