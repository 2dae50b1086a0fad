"""A Redis server, a project and its workers that all tests of one module share: what they ask and what they read."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
import redis

from opsq import App
from support import key_audit, redis_server
from support.broken_messages import body_text, whole
from support.processes import Running, Spawner
from support.redis_server import RedisServer
from support.worker_project import Project

#: How tests call the command line.
OPSQ = [sys.executable, "-m", "opsq"]

#: Before the tasks of a test module; `mark` writes a line that outlives its process, with the time (Unix seconds).
HEAD = """
import os
import time

from opsq import Celery

app = Celery("proj")
MARKS = os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def mark(what, text=""):
    os.write(MARKS, f"{what}|{text}|{os.getpid()}|{time.time()}\\n".encode())


@app.task
def add(x, y):
    return x + y


@app.task
def nap(text, seconds=0.0):
    mark("begin", text)
    time.sleep(seconds)
    mark("end", text)
    return os.getpid()
"""


@dataclass(frozen=True)
class Mark:
    """What a task wrote down: what, about what, in which process, when (Unix seconds)."""

    what: str
    text: str
    pid: int
    time: float


@dataclass
class Lab(Project):
    """Workers of one project, and a client of theirs in this process."""

    server: RedisServer
    redis: redis.Redis = field(repr=False)
    app: App = field(repr=False)
    _marks: list[Mark] = field(default_factory=list, repr=False)
    _read_to: int = field(default=0, repr=False)

    def send(self, task: str, *args: Any, _kwargs: dict[str, Any] | None = None, **options: Any) -> str:
        """Send a task of the project; returns its id."""
        return str(self.app.send_task(f"proj.{task}", args, _kwargs, **options).id)

    def push(self, queue: str, *calls: tuple[Any, ...]) -> None:
        """Messages of (task, argument, ...) put into a queue in one step, the first one next."""
        self.redis.lpush(queue, *[message(task, new_id(), tuple(args)) for task, *args in calls])

    def record(self, task_id: str) -> dict[str, Any] | None:
        """What is stored for a task."""
        raw: Any = self.redis.get(f"celery-task-meta-{task_id}")
        return json.loads(raw) if raw else None

    def state(self, task_id: str) -> str | None:
        record = self.record(task_id)
        return record["status"] if record else None

    def wait_for(self, condition: Callable[[], Any], what: str, timeout: float = 10) -> Any:
        """The first true value of the condition."""
        until = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > until:
                pytest.fail(f"not within {timeout} s: {what}\n{self.spawn.report()}")
            time.sleep(0.002)
        return value

    def result(self, task_id: str, state: str = "SUCCESS", timeout: float = 10) -> dict[str, Any]:
        """The record of a task that has ended, in the state that it must have."""
        ended = ("SUCCESS", "FAILURE", "REVOKED")
        self.wait_for(lambda: self.state(task_id) in ended, f"{task_id} ends", timeout)
        record = self.record(task_id)
        assert record is not None
        assert record["status"] == state, record
        return record

    def value(self, task_id: str, timeout: float = 10) -> Any:
        """What a task returned."""
        return self.result(task_id, timeout=timeout)["result"]

    def run(self, task: str, *args: Any, **options: Any) -> Any:
        """Send a task; what it returned."""
        return self.value(self.send(task, *args, **options))

    def written(self, what: str | None = None, text: str | None = None) -> list[Mark]:
        """The marks in the order in which they were written; only what is new is read from the file."""
        with suppress(FileNotFoundError), (self.folder / "marks").open("rb") as file:
            file.seek(self._read_to)
            whole_lines = file.read().rpartition(b"\n")[0]
            self._read_to += len(whole_lines) + 1 if whole_lines else 0
            for line in whole_lines.decode().splitlines():
                mark, about, pid, when = line.split("|")
                self._marks.append(Mark(mark, about, int(pid), float(when)))
        return [mark for mark in self._marks if what in (None, mark.what) and text in (None, mark.text)]

    def wait_mark(self, what: str, text: str, timeout: float = 10) -> Mark:
        """The first mark of this kind."""
        found: list[Mark] = self.wait_for(lambda: self.written(what, text), f"the mark {what} {text}", timeout)
        return found[0]

    def dead(self, queue: str = "celery") -> dict[str, dict[str, Any]]:
        """The dead letters of a queue, by id."""
        found: Any = self.redis.hgetall(f"opsq:dead:{{{queue}}}")
        return {key.decode(): json.loads(value) for key, value in found.items()}

    def depth(self, queue: str = "celery") -> int:
        """Messages in a queue's lists."""
        return sum(int(self.redis.llen(f"{queue}{suffix}")) for suffix in ("", "\x06\x163", "\x06\x166", "\x06\x169"))

    def in_flight(self) -> int:
        return sum(int(self.redis.hlen(key)) for key in self.redis.scan_iter("opsq:inflight:*"))

    def consumers(self, queue: str = "celery") -> int:
        """Registered consumers."""
        return int(self.redis.zcard(f"opsq:consumers:{{{queue}}}"))

    def is_quiet(self, *queues: str) -> bool:
        """Nothing waits, nothing is in flight, nothing is for later."""
        names = queues or ("celery",)
        later = sum(int(self.redis.zcard(f"opsq:delayed:{{{name}}}")) for name in names)
        return not (later or self.in_flight() or any(self.depth(name) for name in names))

    def lines(self, running: Running, task_id: str) -> list[str]:
        """Log lines that name a task."""
        return [line for line in running.output().splitlines() if task_id in line]

    def end_workers(self) -> None:
        """Stop all that run, warmly."""
        for running in self.spawn.running:
            if running.alive():
                assert running.stop() == 0, running.report()


@contextmanager
def opened(factory: pytest.TempPathFactory, tasks: str, name: str = "lab") -> Iterator[Lab]:
    """A lab whose project has these tasks besides `add` and `nap`. In the end no key is left that nobody knows."""
    folder = factory.mktemp(name)
    project = folder / "project"
    project.mkdir()
    (project / "proj.py").write_text(HEAD + tasks)
    spawner = Spawner(folder)
    with redis_server.running() as server, server.client() as client:
        app = App("client", broker=server.url(), backend=server.url(), set_as_current=False)
        lab = Lab(project, spawner, server.url(), server, client, app)
        try:
            yield lab
            lab.end_workers()
        finally:
            spawner.end_all()
        assert not lab.in_flight(), "messages left in flight"
        assert not (problems := key_audit.of_server(server)), problems


def new_id() -> str:
    return str(uuid4())


def message(task: str, task_id: str, args: tuple[Any, ...] = (), priority: int = 0, **headers: Any) -> bytes:
    """A message of a task of the project as a Celery client writes it."""
    made = whole(task_id)
    made["headers"] |= {"task": f"proj.{task}", **headers}
    made["properties"] |= {"delivery_tag": new_id(), "priority": priority}
    made["body"] = body_text(list(args))
    return json.dumps(made).encode()


def soon(seconds: float) -> float:
    """A bound that only polling, a lease or a hang would miss; how fast it is, is a benchmark's matter."""
    return max(5.0, seconds)


def zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def moment(text: str) -> float:
    """The point in time of an ISO text (Unix seconds)."""
    return datetime.fromisoformat(text).timestamp()


def is_log_line(line: str) -> re.Match[str] | None:
    """A line in Celery's format: time, level, process, message."""
    return re.match(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}): (\w+)/([\w-]+)\] (.*)", line)
