"""What buttons do: requeue and drop dead letters, send a task again, pause and resume a queue."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opsq.broker import deadletters, queues
from opsq.exceptions import OpsqError, UsageError
from opsq.monitor.facts import Facts


@dataclass(frozen=True, slots=True)
class Done:
    """What was done: a word that the page explains, and the page to show (its path)."""

    word: str
    page: str


def requeue(facts: Facts, form: Mapping[str, str]) -> Done:
    """Put dead letters back into their queues: one by its id, or the newest hundred."""
    letters = _letters(facts, form)
    told = deadletters.requeue(facts.app.broker, letters)
    for answer in told.values():
        if answer not in ("sent", "gone"):
            raise OpsqError("a dead letter could not go back", why=answer, hint="it stays where it is")
    return Done("requeued", "/dead")


def drop(facts: Facts, form: Mapping[str, str]) -> Done:
    """Throw dead letters away."""
    deadletters.drop(facts.app.broker, _letters(facts, form))
    return Done("dropped", "/dead")


def _letters(facts: Facts, form: Mapping[str, str]) -> list[deadletters.DeadLetter]:
    letter_id, queue = form.get("id", ""), form.get("queue", "")
    found = deadletters.find(facts.app.broker, [queue] if queue else facts.queue_names(), letter_id)
    if not found:
        raise UsageError("there is no such dead letter", why="it was requeued or dropped meanwhile")
    return found


def pause(facts: Facts, form: Mapping[str, str]) -> Done:
    """Lease nothing more from a queue."""
    queues.pause(facts.app.broker, _queue(facts, form))
    return Done("paused", "/")


def resume(facts: Facts, form: Mapping[str, str]) -> Done:
    """Go on with a paused queue."""
    queues.resume(facts.app.broker, _queue(facts, form))
    return Done("resumed", "/")


def _queue(facts: Facts, form: Mapping[str, str]) -> str:
    name = form.get("queue", "")
    if name not in facts.queue_names():
        raise UsageError("there is no such queue")
    return name


def retry(facts: Facts, form: Mapping[str, str]) -> Done:
    """Send a task again, as a new one with the same arguments."""
    told = facts.task(form.get("id", ""))
    call = call_of(told) if told else None
    if told is None or call is None:
        raise UsageError("this task cannot be sent again", why="its arguments are not known exactly")
    args, kwargs = call
    facts.app.import_tasks()  # what the task itself says of its options holds too
    options = {"queue": told["queue"]} if told["queue"] else {}
    sent = facts.app.send_task(told["name"], args, kwargs, **options)
    return Done("sent", f"/task/{sent.id}")


ACTIONS = {
    "dead/requeue": requeue,
    "dead/drop": drop,
    "task/retry": retry,
    "queue/pause": pause,
    "queue/resume": resume,
}


def call_of(told: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]] | None:
    """The arguments of a task if they are known exactly: stored with its result, or written out as plain values."""
    if not told["name"]:
        return None
    stored = told.get("stored")
    if stored and isinstance(stored["args"], list | tuple) and isinstance(stored["kwargs"], dict):
        return list(stored["args"]), stored["kwargs"]
    args, kwargs = _literal(told["args"]), _literal(told["kwargs"])
    if not isinstance(args, tuple | list) or not isinstance(kwargs, dict):
        return None
    return list(args), kwargs


def _literal(text: str) -> Any:
    """The value of a text as Python writes it; None if it is cut, no plain value, or not the same in JSON."""
    try:
        value = ast.literal_eval(text)
        json.dumps(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value if repr(value) == text else None
