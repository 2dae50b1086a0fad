"""What is told: the events of a child's tasks, gathered and made into one message a turn, and those about a worker.

Made for the hot path: an event is a struct that the fast encoder writes; a task with all its events costs some
microseconds, and nothing when nobody listens.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from opsq._version import __version__
from opsq.events import event
from opsq.events.event import Wrapper
from opsq.protocol.envelope import Envelope

#: What is longer is not told (bytes of JSON): Celery cuts arguments at 1,024 characters.
LONGEST = 8192
_TOO_LONG = msgspec.Raw(b'"..."')


class _Of(msgspec.Struct, gc=False):
    hostname: str
    utcoffset: float
    pid: int
    clock: int
    uuid: str


class _Received(_Of, gc=False):
    name: str
    args: msgspec.Raw
    kwargs: msgspec.Raw
    root_id: str | None
    parent_id: str | None
    retries: int
    eta: str | None
    expires: str | None
    #: More than Celery's workers say of a received task: where it was sent to (a field that its readers know).
    routing_key: str | None
    timestamp: float
    type: str = "task-received"


class _Started(_Of, gc=False):
    timestamp: float
    type: str = "task-started"


class _Succeeded(_Of, gc=False):
    result: str
    runtime: float | None
    timestamp: float
    type: str = "task-succeeded"


class _Trouble(_Of, gc=False):
    exception: str
    traceback: str | None
    timestamp: float
    type: str


class _Rejected(_Of, gc=False):
    requeue: bool
    timestamp: float
    type: str = "task-rejected"


class _Revoked(_Of, gc=False):
    terminated: bool
    signum: int | None
    expired: bool
    timestamp: float
    type: str = "task-revoked"


_encode = msgspec.json.Encoder().encode


def utc_offset() -> float:
    """Hours west of UTC, as events tell it."""
    return (time.altzone if time.localtime().tm_isdst > 0 else time.timezone) / 3600


class TaskEvents:
    """The events of tasks in one process, until they are taken as one message.

    One thread adds, another one may take. `read_clock` and `write_clock` are what the worker's processes share of their
    Lamport clock.
    """

    def __init__(
        self, wrapper: Wrapper, hostname: str, read_clock: Callable[[], int], write_clock: Callable[[int], None]
    ) -> None:
        self._wrapper, self._hostname = wrapper, hostname
        self._read_clock, self._write_clock = read_clock, write_clock
        self._events: deque[_Of] = deque()
        self._clock = 0
        self._pid, self._offset = os.getpid(), utc_offset()

    def __bool__(self) -> bool:
        """Whether something is to be told."""
        return bool(self._events)

    def tick(self) -> None:
        """Go on from where the worker's other processes are."""
        self._clock = max(self._clock, self._read_clock())

    def began(self, message: Envelope) -> None:
        """A task was received, and starts now."""
        headers, now = message.headers, time.time()
        hostname, offset, pid, task_id = self._hostname, self._offset, self._pid, headers.id
        args, kwargs = message.reprs()
        clock = self._clock + 1
        self._clock = clock + 1
        received = _Received(
            hostname,
            offset,
            pid,
            clock,
            task_id,
            headers.shadow or headers.task,
            _short(args),
            _short(kwargs),
            headers.root_id,
            headers.parent_id,
            headers.retries or 0,
            headers.eta,
            headers.expires,
            message.properties.delivery_info.routing_key,
            now,
        )
        self._events.append(received)
        self._events.append(_Started(hostname, offset, pid, clock + 1, task_id, now))

    def succeeded(self, task_id: str, result: str, runtime_s: float) -> None:
        """A task has returned."""
        self._events.append(_Succeeded(*self._of(task_id), result, runtime_s, time.time()))

    def failed(self, task_id: str, exception: str, traceback: str | None) -> None:
        """A task has failed for good."""
        self._events.append(_Trouble(*self._of(task_id), exception, traceback, time.time(), "task-failed"))

    def retried(self, task_id: str, exception: str, traceback: str | None) -> None:
        """A task will be tried again."""
        self._events.append(_Trouble(*self._of(task_id), exception, traceback, time.time(), "task-retried"))

    def rejected(self, task_id: str, requeue: bool) -> None:
        """A task was given back, or given up, without a result."""
        self._events.append(_Rejected(*self._of(task_id), requeue, time.time()))

    def revoked(self, task_id: str, *, expired: bool, signum: int | None = None) -> None:
        """A task did not run, or was killed by a signal because it was revoked."""
        self._events.append(_Revoked(*self._of(task_id), signum is not None, signum, expired, time.time()))

    def take(self) -> bytes | None:
        """What has been gathered, as one message; None when that is nothing."""
        events = []
        while self._events:
            events.append(self._events.popleft())
        if not events:
            return None
        if self._clock > self._read_clock():
            self._write_clock(self._clock)
        return self._wrapper.wrap(_as_json(events), event.TASKS)

    def _of(self, task_id: str) -> tuple[str, float, int, int, str]:
        self._clock += 1
        return self._hostname, self._offset, self._pid, self._clock, task_id


def _short(raw: msgspec.Raw) -> msgspec.Raw:
    return raw if len(raw) <= LONGEST else _TOO_LONG


def _as_json(events: list[_Of]) -> bytes:
    try:
        body: bytes = _encode(events)
        body.decode()
        return body
    except UnicodeError:  # half a character in a text of a task
        return json.dumps([_plain(each) for each in events]).encode()


def _plain(told: _Of) -> dict[str, Any]:
    found = msgspec.structs.asdict(told)
    return {
        name: json.loads(bytes(value).decode(errors="replace")) if isinstance(value, msgspec.Raw) else value
        for name, value in found.items()
    }


class Sender:
    """Makes single events: about a worker, or of a publisher."""

    def __init__(self, wrapper: Wrapper, hostname: str) -> None:
        self._wrapper, self._hostname = wrapper, hostname

    def message(self, kind: str, clock: int, **fields: Any) -> tuple[str, bytes]:
        """The routing key and the message of an event."""
        told = {"hostname": self._hostname, "utcoffset": utc_offset(), "pid": os.getpid(), "clock": clock}
        body = json.dumps({**told, **fields, "timestamp": time.time(), "type": kind}).encode()
        routing_key = kind.replace("-", ".")
        return routing_key, self._wrapper.wrap(body, routing_key)

    def about_worker(self, kind: str, clock: int, freq_s: float, active: int, processed: int) -> tuple[str, bytes]:
        """worker-online, -heartbeat or -offline: how often it comes, tasks that run, tasks that ran, load, software."""
        loads = os.getloadavg() if hasattr(os, "getloadavg") else (0.0, 0.0, 0.0)
        load = [math.ceil(one * 100) / 100 for one in loads]
        software = {"sw_ident": "opsq", "sw_ver": __version__, "sw_sys": platform.system()}
        return self.message(kind, clock, freq=freq_s, active=active, processed=processed, loadavg=load, **software)
