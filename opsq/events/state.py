"""The cluster as its events tell it: workers, and their tasks with their states, within bounds. Knows no connection."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from opsq import states
from opsq.events.event import Event

#: A worker counts as alive for so many times its heartbeat's interval after the last one (Celery's window of 200%).
WINDOW = 2.0
#: How often a worker tells of itself when it does not say (seconds).
FREQ_S = 2.0
#: Tasks that are remembered; the ones that were heard of least lately go first.
MOST_TASKS = 10_000
#: Workers that are remembered.
MOST_WORKERS = 5_000

#: What a task's event says of its state.
STATE_OF = {
    "task-sent": states.PENDING,
    "task-received": states.RECEIVED,
    "task-started": states.STARTED,
    "task-succeeded": states.SUCCESS,
    "task-failed": states.FAILURE,
    "task-retried": states.RETRY,
    "task-revoked": states.REVOKED,
    "task-rejected": states.REJECTED,
}
#: When events of a task come in another order than they happened, what is less far does not change what is known.
_FAR = {states.PENDING: 0, states.RECEIVED: 1, states.STARTED: 2, states.RETRY: 1, states.REJECTED: 1}
_ENDED = 3
_INFO = ("args", "kwargs", "retries", "result", "eta", "runtime", "expires", "exception", "root_id", "parent_id")


@dataclass(slots=True)
class Worker:
    """What one worker has told of itself. `heard`: when its last event arrived (Unix seconds of this host)."""

    hostname: str
    pid: int | None = None
    freq: float = FREQ_S
    active: int | None = None
    processed: int | None = None
    loadavg: list[float] | None = None
    sw_ident: str | None = None
    sw_ver: str | None = None
    sw_sys: str | None = None
    heard: float = 0.0
    online: bool = True

    def alive(self, now: float | None = None) -> bool:
        """Whether it has told of itself lately enough."""
        return self.online and (time.time() if now is None else now) <= self.heard + self.freq * WINDOW

    def update(self, event: Event, now: float) -> None:
        """Take in an event about it."""
        for name in ("pid", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys"):
            if event.get(name) is not None:
                setattr(self, name, event[name])
        self.freq = float(event.get("freq") or self.freq)
        self.heard, self.online = now, event["type"] != "worker-offline"


@dataclass(slots=True)
class Task:
    """What was told of one task. Times are Unix seconds by the clock of who told; `timestamp` is the last event's."""

    uuid: str
    name: str | None = None
    state: str = states.PENDING
    worker: str | None = None
    args: str | None = None
    kwargs: str | None = None
    retries: int = 0
    eta: str | None = None
    expires: str | None = None
    queue: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    sent: float | None = None
    received: float | None = None
    started: float | None = None
    ended: float | None = None
    result: str | None = None
    runtime: float | None = None
    exception: str | None = None
    traceback: str | None = None
    timestamp: float = 0.0
    clock: int = field(default=0, repr=False)

    def update(self, event: Event) -> None:
        """Take in an event of it."""
        state = STATE_OF.get(event["type"])
        at = _number(event.get("timestamp")) or time.time()
        for name in ("name", "args", "kwargs", "eta", "expires", "queue", "root_id", "parent_id"):
            if event.get(name) is not None:
                setattr(self, name, event[name])
        if state is None:
            return
        again = int(event.get("retries") or 0) > self.retries
        tries = states.RETRY in (state, self.state) and self.ended is None
        if again or tries or _far(state) >= _far(self.state):
            self.state = state
        if again:
            self.retries, self.ended = int(event["retries"]), None
        if state == states.PENDING:
            self.sent = at
        else:
            self.worker = event.get("hostname") or self.worker
        if state == states.RECEIVED:
            self.received = at
        elif state == states.STARTED:
            self.started = at
        elif _far(state) == _ENDED:
            self.ended = at
        for name in ("result", "runtime", "exception", "traceback"):
            if event.get(name) is not None:
                setattr(self, name, event[name])
        self.timestamp, self.clock = max(self.timestamp, at), max(self.clock, int(event.get("clock") or 0))

    def info(self, fields: Iterable[str] | None = None, extra: Iterable[str] = ()) -> dict[str, Any]:
        """What is known, by name: of these fields, else of those that tell of the call and its end."""
        wanted = [*(_INFO if fields is None else fields), *extra]
        return {name: value for name in wanted if (value := getattr(self, name, None)) is not None}


def _far(state: str) -> int:
    return _FAR.get(state, _ENDED)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


class State:
    """All workers and the latest tasks. `event` takes in what is heard; an event that makes no sense is passed by."""

    def __init__(
        self,
        max_tasks: int = MOST_TASKS,
        max_workers: int = MOST_WORKERS,
        callback: Callable[[State, Event], None] | None = None,
    ) -> None:
        self.max_tasks, self.max_workers, self._callback = max_tasks, max_workers, callback
        self.workers: OrderedDict[str, Worker] = OrderedDict()
        self.tasks: OrderedDict[str, Task] = OrderedDict()
        self.event_count = self.task_count = 0

    def event(self, event: Event) -> Task | Worker | None:
        """Take in an event; what it was about."""
        self.event_count += 1
        kind, now = str(event.get("type")), time.time()
        found: Task | Worker | None = None
        hostname = event.get("hostname")
        if kind.startswith("worker-") and isinstance(hostname, str):
            found = self._worker(hostname)
            found.update(event, now)
        elif kind.startswith("task-") and isinstance(event.get("uuid"), str):
            found = self._task(event["uuid"])
            found.update(event)
            if kind != "task-sent" and isinstance(hostname, str):
                self._worker(hostname).heard = now
        if found is not None and self._callback is not None:
            self._callback(self, event)
        return found

    def _worker(self, hostname: str) -> Worker:
        found = self.workers.get(hostname)
        if found is None:
            found = self.workers[hostname] = Worker(hostname)
            if len(self.workers) > self.max_workers:
                self.workers.popitem(last=False)
        self.workers.move_to_end(hostname)
        return found

    def _task(self, uuid: str) -> Task:
        found = self.tasks.get(uuid)
        if found is None:
            found = self.tasks[uuid] = Task(uuid)
            self.task_count += 1
            if len(self.tasks) > self.max_tasks:
                self.tasks.popitem(last=False)
        self.tasks.move_to_end(uuid)
        return found

    # -- looking -------------------------------------------------------------------------------------------------------

    def alive_workers(self) -> Iterator[Worker]:
        """Those that have told of themselves lately."""
        now = time.time()
        return (worker for worker in list(self.workers.values()) if worker.alive(now))

    def tasks_by_timestamp(self, limit: int | None = None) -> Iterator[tuple[str, Task]]:
        """(id, task), the latest first."""
        latest = sorted(self.tasks.items(), key=lambda pair: pair[1].timestamp, reverse=True)
        return iter(latest if limit is None else latest[:limit])

    def tasks_by_type(self, name: str, limit: int | None = None) -> Iterator[tuple[str, Task]]:
        """The same of one task name."""
        return self._some(lambda task: task.name == name, limit)

    def tasks_by_worker(self, hostname: str, limit: int | None = None) -> Iterator[tuple[str, Task]]:
        """The same of one worker."""
        return self._some(lambda task: task.worker == hostname, limit)

    def task_types(self) -> list[str]:
        """The names of all tasks that were heard of."""
        return sorted({task.name for task in self.tasks.values() if task.name})

    def _some(self, wanted: Callable[[Task], bool], limit: int | None) -> Iterator[tuple[str, Task]]:
        found: Iterable[tuple[str, Task]] = (pair for pair in self.tasks_by_timestamp() if wanted(pair[1]))
        return (pair for number, pair in enumerate(found) if limit is None or number < limit)
