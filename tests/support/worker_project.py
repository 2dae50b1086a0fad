"""A project whose tasks write down when they begin and end, and the workers that tests start on it.

Marks are single writes to a file in append mode: they survive kill -9 of the writer, and none is torn.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import redis

from .processes import Running, Spawner

SOURCE = '''
import ctypes
import os
import time

from opsq import Celery

app = Celery("proj")
MARKS = os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def mark(what, number):
    os.write(MARKS, f"{what} {number} {os.getpid()}\\n".encode())


def effect(number, seconds):
    mark("begin", number)
    time.sleep(seconds)
    mark("effect", number)
    mark("end", number)


@app.task(acks_late=True)
def late(number, seconds=0.0):
    effect(number, seconds)


@app.task
def early(number, seconds=0.0):
    effect(number, seconds)


@app.task
def add(x, y):
    return x + y


@app.task
def boom(text):
    raise ValueError(text)


@app.task(bind=True, max_retries=3, default_retry_delay=0.05)
def flaky(self, failures):
    if self.request.retries < failures:
        raise self.retry(exc=RuntimeError(f"try {self.request.retries}"))
    return self.request.retries


@app.task(soft_time_limit=0.2)
def soft(number):
    from opsq.exceptions import SoftTimeLimitExceeded

    try:
        time.sleep(30)
    except SoftTimeLimitExceeded:
        mark("soft", number)
        return "cleaned up"


@app.task(time_limit=0.3)
def hard(number):
    mark("begin", number)
    time.sleep(30)


@app.task(time_limit=0.5)
def hold_the_interpreter(number):
    """Sleeps inside C code that keeps the interpreter's lock."""
    ctypes.PyDLL(None).usleep(30_000_000)


@app.task
def talk(text):
    print("said", text)


@app.task(acks_late=True)
def kill_me(number):
    mark("begin", number)
    os.kill(os.getpid(), 9)


@app.task
def whoami():
    return os.getpid()
'''


@dataclass
class Project:
    """The folder, and what its tasks have written down."""

    folder: Path
    spawn: Spawner
    url: str

    @property
    def environment(self) -> dict[str, str]:
        return {"OPSQ_BROKER_URL": self.url, "MARKS": str(self.folder / "marks"), "PYTHONPATH": str(self.folder)}

    def worker(self, *options: str, name: str = "", ready: bool = True, **environment: str) -> Running:
        """A worker in the foreground; ready means that its children are at work."""
        argv = [sys.executable, "-m", "opsq", "-A", "proj", "worker", "-l", "info", *options]
        running = self.spawn(argv, name=name, env={**self.environment, **environment}, cwd=self.folder)
        if ready:
            until = time.monotonic() + 30
            while " ready." not in running.output():
                if not running.alive() or time.monotonic() > until:
                    pytest.fail(running.report())
                time.sleep(0.005)
        return running

    def marks(self) -> list[tuple[str, str, int]]:
        """(what, number, pid) in the order in which they were written."""
        try:
            lines = (self.folder / "marks").read_text().rpartition("\n")[0].splitlines()
        except FileNotFoundError:
            return []
        return [(what, number, int(pid)) for what, number, pid in (line.split() for line in lines)]

    def effects(self) -> Counter[str]:
        """How often each number had its effect."""
        return Counter(number for what, number, _pid in self.marks() if what == "effect")

    def running_now(self) -> set[int]:
        """Processes that have begun a task and not ended it."""
        open_: dict[int, int] = {}
        for what, _number, pid in self.marks():
            open_[pid] = 1 if what == "begin" else 0 if what == "end" else open_.get(pid, 0)
        return {pid for pid, is_open in open_.items() if is_open}


def children_of(running: Running) -> list[psutil.Process]:
    """The children of a worker: what its templates have forked."""
    found: list[psutil.Process] = []
    for template in psutil.Process(running.pid).children():
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            found += template.children()
    return found


def left_in_flight(client: redis.Redis) -> int:
    """Messages in any consumer's store."""
    return sum(client.hlen(key) for key in client.scan_iter("opsq:inflight:*"))


def all_done(client: redis.Redis, queue: str = "celery") -> bool:
    """Nothing waits, nothing is in flight, nothing is for later."""
    waiting = sum(client.llen(f"{queue}{suffix}") for suffix in ("", "\x06\x163", "\x06\x166", "\x06\x169"))
    return not (waiting or left_in_flight(client) or client.zcard(f"opsq:delayed:{{{queue}}}"))


def write(folder: Path) -> Path:
    """Write the project's module."""
    (folder / "proj.py").write_text(SOURCE)
    return folder
