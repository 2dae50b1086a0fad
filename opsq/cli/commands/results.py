"""`opsq results`: what came of a task; without an id, the results that are there, or those of the history that fit.

`opsq result ID` is Celery's word: it waits for the value and prints it.
"""

from __future__ import annotations

from typing import Any

import click

from opsq import states
from opsq.cli import history
from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.cli.output import Column, local_time, shown
from opsq.cli.params import Duration, limit_option
from opsq.exceptions import OpsqError, UsageError
from opsq.utils.time import parse_iso

COLUMNS = (
    Column("id", "ID"),
    Column("state", "STATE"),
    Column("done", "DONE", "time", extra=True),
    Column("value", "RESULT", cut="end"),
    Column("name", "TASK", cut="start", extra=True),
)

#: The states of the history that are ends.
ENDED = frozenset((*states.READY_STATES, states.REJECTED))

EXAMPLES = """
opsq results 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11
opsq results --limit 20
opsq results --state FAILURE --since 1h --name mail
"""

RESULT_EXAMPLES = """
opsq result 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11
opsq -A proj result --timeout 10 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11
opsq -A proj result --traceback 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11
"""


@command(EXAMPLES)
@click.argument("task_id", metavar="[ID]", required=False)
@history.filter_options
@limit_option
@pass_context
def results(context: Context, /, task_id: str | None, limit: int, **given: Any) -> None:
    """The state, the value or the error of a task; without an id, the results that are stored.

    With a filter: the latest ends that fit, from the history that the monitor keeps.
    """
    if history.is_filtered(given):
        if task_id is not None:
            raise UsageError("an id and filters do not fit together", hint=f"opsq results {task_id}")
        _history(context, limit, given)
        return
    if task_id is None:
        _list(context, limit)
        return
    told = _known(context, task_id)
    if context.out.json:
        context.out.document(told)
        return
    traceback = told.pop("traceback")
    if told["done"]:
        told["done"] = local_time(told["done"])
    if told["error"]:
        told["error"] = f"{told['error']['type']}: {told['error']['message']}"
    context.out.facts((name, value) for name, value in told.items() if value is not None)
    if traceback:
        context.out.block(traceback)
    if told["state"] == states.PENDING:
        context.out.say("nothing is stored: it waits, or runs, or has expired, or never was")


@command(RESULT_EXAMPLES)
@click.argument("task_id", metavar="ID")
@click.option("-t", "--task", metavar="NAME", help="The task's name, where its results are kept in a place of its own.")
@click.option("--traceback", is_flag=True, help="The traceback of a failure instead of the value.")
@click.option("--timeout", type=Duration(), metavar="S", help="Wait so long at most; default: until it has ended.")
@pass_context
def result(context: Context, task_id: str, task: str | None, traceback: bool, timeout: float | None) -> None:
    """Wait until a task has ended, and print its value; of a failure its traceback, with exit code 1."""
    app = context.app
    if task is not None:
        app.import_tasks()
        if task not in app.tasks:
            raise UsageError(f"no task is called {task}", hint="opsq tasks lists them; -A names the app")
    found = app.tasks[task].AsyncResult(task_id) if task else app.AsyncResult(task_id)
    out = context.out
    if traceback:
        told = found.traceback
        out.document({"traceback": told}) if out.json else out.block(told or "-")
        return
    if not found.ready():
        out.say(f"waiting for {task_id}, which is {found.state}; Ctrl-C ends")
    value = found.get(timeout=timeout, propagate=False)
    if out.json:
        out.document(describe(found.known(), task_id))
        click.get_current_context().exit(0 if found.successful() else 1)
    if not found.successful():
        out.say((found.traceback or "").rstrip())
        raise OpsqError(f"the task {task_id} failed", why=f"{type(value).__name__}: {value}")
    out.line(str(value))


def describe(meta: dict[str, Any], task_id: str) -> dict[str, Any]:
    """A record as scripts get it; points in time are Unix seconds."""
    value = meta["result"]
    failed = isinstance(value, BaseException)
    done = meta.get("date_done")
    done = parse_iso(done) if isinstance(done, str) else done
    return {
        "id": task_id,
        "state": meta["status"],
        "result": None if failed else value,
        "error": {"type": type(value).__name__, "message": str(value)} if failed else None,
        "traceback": meta.get("traceback"),
        "done": None if done is None else done.timestamp(),
        **{name: meta.get(name) for name in ("name", "args", "kwargs", "worker", "retries", "queue")},
    }


def _known(context: Context, task_id: str) -> dict[str, Any]:
    """What is stored; if that has expired or was never kept, what the monitor's history has."""
    told = describe(context.app.backend.get_meta(task_id), task_id)
    if told["state"] != states.PENDING:
        return told
    kept = history.one(context.broker, task_id)
    return told if kept is None else {**told, **_of_history(kept)}


def _of_history(row: dict[str, Any]) -> dict[str, Any]:
    """A task of the history in the form of a result; values are texts as events write them."""
    kind, _, message = (row["exception"] or "").partition("(")
    return {
        "id": row["id"],
        "state": row["state"],
        "result": row["result"],
        "error": {"type": kind, "message": message.removesuffix(")")} if kind else None,
        "traceback": row["traceback"],
        "done": row["finished"] or row["updated"],
        **{name: row[name] or None for name in ("name", "args", "kwargs", "worker")},
        "retries": row["retries"],
        "queue": row["queue"],
    }


def _history(context: Context, limit: int, given: dict[str, Any]) -> None:
    found, more = history.find(context.broker, given, limit, only=ENDED)
    rows = [_of_history(row) for row in found]
    if not context.out.json:
        for row, told in zip(rows, found, strict=True):
            row["value"] = told["exception"] or told["result"] or told["note"]
    context.out.table("results", COLUMNS, rows, empty="nothing in the history fits (opsq monitor keeps it)")
    if more:
        context.out.say(f"{len(rows)} shown, there are more; --limit 0 shows all")


def _list(context: Context, limit: int) -> None:
    """Those that were found first, latest first; a large database is not read to its end for this."""
    found, more = context.app.backend.stored(limit)
    rows = sorted(
        (describe(meta, task_id) for task_id, meta in found), key=lambda row: (-(row["done"] or 0), row["id"])
    )
    if not context.out.json:
        for row in rows:
            row["value"] = (
                f"{row['error']['type']}: {row['error']['message']}" if row["error"] else shown(row["result"])
            )
    context.out.table("results", COLUMNS, rows, empty="no results are stored")
    if more:
        context.out.say(f"{len(rows)} shown, there are more; --limit 0 shows all")
