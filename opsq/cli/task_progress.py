"""The tasks that run now, and how far they say they are (`Task.progress`, or its state by hand): table and bars."""

from __future__ import annotations

import math
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from opsq.broker import workers as store
from opsq.cli.context import Context
from opsq.cli.output import Column
from opsq.cli.params import limited
from opsq.cli.watch import watched
from opsq.exceptions import DuplicateNodenameWarning, OpsqError

COLUMNS = (
    Column("task", "RUNS NOW", cut="start"),
    Column("id", "ID"),
    Column("runtime", "FOR", "seconds"),
    Column("done", "DONE", extra=True),
    Column("worker", "WORKER", cut="start", extra=True),
    Column("pid", "PID", "number", extra=True),
)
WATCH_COLUMNS = (
    Column("task", "RUNS NOW", cut="start"),
    Column("runtime", "FOR", "seconds"),
    Column("bar", "PROGRESS"),
    Column("done", "DONE"),
    Column("eta", "ETA", "seconds"),
    Column("note", "NOTE", cut="end", extra=True),
    Column("id", "ID", extra=True),
    Column("worker", "WORKER", cut="start", extra=True),
)
#: From this many columns on bars are long.
WIDE = 120
#: How long a worker may take to answer (seconds).
ANSWER_S = 0.25


def running(context: Context) -> list[dict[str, Any]]:
    """What the children of all workers run, longest first, each with its `progress` (None: it says nothing).

    As the workers' records say, which are some seconds old.
    """
    return _with_progress(context, _recorded(store.live(context.broker)))


def running_now(context: Context) -> list[dict[str, Any]]:
    """The same as the workers themselves say when asked, Celery's too; of those that do not answer as recorded."""
    records = store.live(context.broker)
    names = Counter(record["node"] for record in records)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DuplicateNodenameWarning)
        answers = context.app.control.inspect(timeout=ANSWER_S).active(safe=True) or {}
    told = {node: tasks for node, tasks in answers.items() if names[node] < 2 and isinstance(tasks, list)}
    found = _recorded([record for record in records if record["node"] not in told])
    found += [
        _row(task.get("name"), task.get("id"), node, task.get("worker_pid"), task["time_start"])
        for node, tasks in told.items()
        for task in tasks
        if _is_number(task.get("time_start"))
    ]
    return _with_progress(context, found)


def _recorded(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        _row(child["task"], child["task_id"], record["node"], child["pid"], child["since"])
        for record in records
        for child in record["children"]
        if child.get("since")
    ]


def _row(task: Any, task_id: Any, worker: Any, pid: Any, since: float) -> dict[str, Any]:
    runtime_s = max(time.time() - since, 0)
    return {"task": task, "id": task_id, "worker": worker, "pid": pid, "since": since, "runtime": runtime_s}


def _with_progress(context: Context, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    told = _told(context, [row["id"] for row in rows])
    for row in rows:
        row["progress"] = told.get(row["id"])
        row["done"] = share(row["progress"])
    return sorted(rows, key=lambda row: -row["runtime"])


def as_data(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same for scripts."""
    return [{name: value for name, value in row.items() if name != "done"} for row in rows]


def _told(context: Context, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How far tasks say they are, by id. Where results cannot be read, nothing is known."""
    backend = context.app.backend
    if not (ids and backend.keeps_results):
        return {}
    try:
        metas = backend.get_metas([task_id for task_id in ids if task_id])
    except OpsqError as error:
        context.out.say(f"how far they are is not known: {error}")
        return {}
    found = {task_id: _progress(meta["result"]) for task_id, meta in metas.items() if meta["status"] == "PROGRESS"}
    return {task_id: progress for task_id, progress in found.items() if progress is not None}


def _progress(meta: Any) -> dict[str, Any] | None:
    """Numbers and note of a record; programs that write it by hand often call the note `status`."""
    if not isinstance(meta, dict) or not _is_number(meta.get("current")):
        return None
    total: Any = meta.get("total")
    note = meta.get("note", meta.get("status"))
    return {
        "current": meta["current"],
        "total": total if _is_number(total) and total > 0 else None,
        "note": None if note is None else str(note),
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def share(progress: Mapping[str, Any] | None) -> str | None:
    """How much is done: `60%`, or how many when nobody knows of how many."""
    if progress is None:
        return None
    if progress["total"] is None:
        return f"{progress['current']:g}"
    return f"{math.floor(_part(progress) * 100)}%"


def _part(progress: Mapping[str, Any]) -> float:
    return float(min(max(progress["current"] / progress["total"], 0.0), 1.0))


def bar(progress: Mapping[str, Any] | None, width: int, plain: bool) -> str | None:
    """What is done as a part of a line of so many characters; None where nobody knows of how much."""
    if progress is None or progress["total"] is None:
        return None
    filled = math.floor(_part(progress) * width)
    done, left = ("#", "-") if plain else ("━", "┈")
    return done * filled + left * (width - filled)


def eta_s(progress: Mapping[str, Any] | None, runtime_s: float) -> float | None:
    """How long it still takes if it goes on as before (seconds)."""
    part = _part(progress) if progress is not None and progress["total"] is not None else 0.0
    return runtime_s * (1 - part) / part if part > 0 else None


def watch(context: Context, limit: int) -> NoReturn:
    """What runs now, shown again each second until Ctrl-C; in a pipe, or as JSON, one after the other."""
    watched(context, lambda: _show(context, limit))


def _show(context: Context, limit: int) -> None:
    out, rows = context.out, running_now(context)
    if out.json:
        out.document({"running": as_data(limited(rows, limit))})
        return
    plain = out.plain or not out.terminal
    width = 40 if out.width >= WIDE else 20
    for row in rows:
        progress = row["progress"]
        row["bar"], row["eta"] = bar(progress, width, plain), eta_s(progress, row["runtime"])
        row["note"] = progress["note"] if progress else None
    out.table("running", WATCH_COLUMNS, limited(rows, limit), total=len(rows))
    if not rows:
        out.line(f"{time.strftime('%H:%M:%S')}  nothing runs")
