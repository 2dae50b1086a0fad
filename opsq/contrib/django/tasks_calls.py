"""What is known of a call besides its result: what was called, when it was sent, which workers have begun it.

It is in the broker's Redis from the sending on, so that `get_result` knows a call that has not run yet. What came of it
is where the project's results are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from opsq.backends.base import Format
from opsq.datastore import keys

#: Under this name a message says how it was called.
HEADER = "django_task"
#: The field of the call; the others are attempts: Unix seconds -> worker.
_CALL = b"call"


class Attempt(NamedTuple):
    """A worker has begun to run it, at `at` (Unix seconds)."""

    at: float
    worker: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call as it was made; times are Unix seconds, None = not known, or at once."""

    task: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    backend: str
    queue_name: str
    priority: int
    run_after: float | None
    enqueued_at: float | None

    def header(self) -> dict[str, Any]:
        """What its message says of it, besides task and arguments."""
        names = ("backend", "queue_name", "priority", "run_after", "enqueued_at")
        return {name: getattr(self, name) for name in names}


def level(priority: int) -> int:
    """The priority of a message, 0 (first) to 9, for one of Django's, 100 (first) to -100."""
    return min((100 - priority) // 20, 9)


def write(app: Any, task_id: str, call: Call) -> None:
    """Note a call that is about to be sent. Raises OperationalError."""
    lives_s = _lives_s(app) + int(max((call.run_after or 0) - time.time(), 0))
    _note(app, task_id, lives_s, _CALL, json.dumps(asdict(call)))


def begin(app: Any, task_id: str, call: Call, attempt: Attempt) -> list[Attempt]:
    """Note that a worker begins to run it; returns all attempts, the first one first. Raises OperationalError.

    The call is noted again: its note may have gone while it waited.
    """
    fields = (_CALL, json.dumps(asdict(call)), f"{attempt.at:.6f}", attempt.worker)
    return _attempts(_note(app, task_id, _lives_s(app), *fields))


def read(app: Any, task_id: str) -> tuple[Call | None, list[Attempt]]:
    """A call, None if it is not known, and who has begun it, the first one first. Raises OperationalError."""
    broker = app.broker
    [fields] = broker.repeat([("HGETALL", _key(broker, task_id))])
    noted = _pairs(fields)
    return Call(**json.loads(noted[_CALL])) if _CALL in noted else None, _attempts(fields)


def forget(app: Any, task_id: str) -> None:
    """Nobody will run it. Raises OperationalError."""
    broker = app.broker
    broker.repeat([("DEL", _key(broker, task_id))])


def _note(app: Any, task_id: str, lives_s: int, *fields: Any) -> list[bytes]:
    broker = app.broker
    key = _key(broker, task_id)
    in_one_step = [("HSET", key, *fields), ("EXPIRE", key, lives_s), ("HGETALL", key)]
    answers = broker.repeat([("MULTI",), *in_one_step, ("EXEC",)])
    found: list[bytes] = answers[-1][-1]
    return found


def _key(broker: Any, task_id: str) -> str:
    key: str = broker.key(keys.django_task(task_id))
    return key


def _lives_s(app: Any) -> int:
    """Longer than its result by the time that a run may take."""
    return (Format.of(app.conf).ttl_s or keys.DJANGO_TASK_S) + keys.DJANGO_RUN_S


def _attempts(fields: Sequence[bytes]) -> list[Attempt]:
    return sorted(Attempt(float(name), value.decode()) for name, value in _pairs(fields).items() if name != _CALL)


def _pairs(fields: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))
