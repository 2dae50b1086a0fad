"""What `opsq logs --task ID` shows: the lines of one task, and with -f those that come, until it has ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import datetime

from opsq import states
from opsq.broker import task_logs
from opsq.broker.task_logs import LogLine
from opsq.cli.context import Context
from opsq.cli.output import harmless
from opsq.exceptions import OpsqError

#: How often it is looked whether a task that says nothing has ended (seconds).
LOOK_S = 0.5


def show(context: Context, task_id: str, most: int, follow: bool, as_json: bool) -> None:
    """Write the last `most` lines that are kept, then those that come."""
    if not follow:
        kept = task_logs.read(context.broker, task_id)
        _write(kept[-most:] if most else (), task_id, as_json)
        if not kept:
            context.out.say(_nothing(context, task_id))
        return
    told = False
    first = True
    for lines in task_logs.follow(context.broker, task_id, LOOK_S, lambda: _has_ended(context, task_id)):
        _write(lines[-most:] if first and most else lines if not first else (), task_id, as_json)
        first, told = False, told or bool(lines)
    if not told:
        context.out.say(_nothing(context, task_id))


def _write(lines: Iterable[LogLine], task_id: str, as_json: bool) -> None:
    for line in lines:
        if as_json:
            told = {"task_id": task_id, "time": line.time, "level": line.level, "message": line.message}
            print(json.dumps(told))
        else:
            print(as_text(line))
    sys.stdout.flush()


def as_text(line: LogLine) -> str:
    """A line as logs have it; the lines of a traceback below each other."""
    at = datetime.fromtimestamp(line.time)
    first, *more = line.message.splitlines() or [""]
    head = f"[{at:%Y-%m-%d %H:%M:%S},{at.microsecond // 1000:03}: {line.level}] {harmless(first)}"
    return "\n".join([head, *map(harmless, more)])


def _has_ended(context: Context, task_id: str) -> bool:
    """Whether its result says so; of a task without one nobody knows."""
    backend = context.app.backend
    if not backend.keeps_results:
        return False
    try:
        return bool(backend.get_meta(task_id)["status"] in states.READY_STATES)
    except OpsqError:  # a result that cannot be read is there
        return True


def _nothing(context: Context, task_id: str) -> str:
    if context.app.conf.task_log_max_bytes:
        return (
            f"no lines of {task_id} are kept: it has not logged or printed anything yet, or that is more than a day ago"
        )
    return (
        f"no lines of {task_id} are kept: task_log_max_bytes is {context.app.conf.task_log_max_bytes!r} here\n"
        "hint: set it to the bytes that lines of all tasks may take in the broker, and restart the workers"
    )
