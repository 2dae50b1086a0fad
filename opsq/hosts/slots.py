"""The commands that run on a host: so many at a time, the others wait; each has a thread, a cancel ends it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from opsq.hosts.checks import Checks, Refused
from opsq.hosts.order import Order
from opsq.hosts.runner import CANCELLED, Ended, Runner

logger = logging.getLogger("opsq.agent")


class Desk(Protocol):
    """Where an order came from: who hears what becomes of it."""

    def accepted(self, task: Task) -> None:
        """Its command starts now."""

    def refused(self, task: Task, reason: str) -> None:
        """It passed the checks and was not started after all."""

    def ended(self, task: Task, ended: Ended) -> None:
        """Its command has ended."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """An order that has passed the checks, as it arrived, and where it came from."""

    order: Order
    raw: bytes
    desk: Desk


class Slots:
    """At most `count` commands at a time."""

    def __init__(self, count: int, checks: Checks, environment: Mapping[str, str]) -> None:
        self.count = count
        self._checks, self._environment = checks, environment
        self._changed = threading.Condition()
        self._waiting: deque[Task] = deque()
        self._running: dict[Task, Runner] = {}
        self._closed = ""

    @property
    def free(self) -> int:
        """How many more could start now."""
        return max(0, self.count - len(self._running) - len(self._waiting))

    def holds(self, raw: bytes) -> bool:
        """Whether this very order waits or runs here."""
        with self._changed:
            return any(task.raw == raw for task in (*self._waiting, *self._running))

    def submit(self, task: Task) -> None:
        """Start it, or let it wait for a slot."""
        with self._changed:
            if not self._closed:
                self._waiting.append(task)
                self._start_waiting()
                return
        task.desk.refused(task, self._closed)

    def cancel(self, job: str) -> None:
        """End what runs for a job, and forget what waits for it."""
        with self._changed:
            dropped = [task for task in self._waiting if task.order.job == job]
            self._waiting = deque(task for task in self._waiting if task.order.job != job)
            for task, runner in self._running.items():
                if task.order.job == job:
                    runner.end(CANCELLED)
        for task in dropped:
            task.desk.refused(task, CANCELLED)

    def close(self, reason: str, patience_s: float) -> None:
        """Start nothing more; what runs may end by itself for so long, then it is ended."""
        with self._changed:
            self._closed = reason
            dropped, self._waiting = list(self._waiting), deque()
        for task in dropped:
            task.desk.refused(task, reason)
        with self._changed:
            self._changed.wait_for(lambda: not self._running, patience_s)
        self.end_all(reason)

    def hurry(self, reason: str) -> None:
        """End what runs."""
        with self._changed:
            for runner in self._running.values():
                runner.end(reason)

    def end_all(self, reason: str) -> None:
        """End what runs, and wait for it."""
        self.hurry(reason)
        with self._changed:
            most_s = max((task.order.kill_after_s for task in self._running), default=0.0)
            self._changed.wait_for(lambda: not self._running, most_s + 5.0)

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < self.count:
            task = self._waiting.popleft()
            runner = self._running[task] = Runner(task.order, {**self._environment, "OPSQ_JOB": task.order.job})
            threading.Thread(target=self._carry_out, args=(task, runner), name=task.order.job, daemon=True).start()

    def _carry_out(self, task: Task, runner: Runner) -> None:
        try:
            self._checks.claim(task.order)
            task.desk.accepted(task)
            task.desk.ended(task, runner.run())
        except Refused as refusal:
            task.desk.refused(task, refusal.reason)
        except Exception as error:
            logger.exception("job %s failed in the agent itself", task.order.job)
            now = time.time()
            text = f"opsq: the agent failed: {type(error).__name__}: {error}\n".encode()
            task.desk.ended(task, Ended(125, None, now, now, "", b"", 0, text, len(text)))
        finally:
            with self._changed:
                del self._running[task]
                runner.close()
                self._start_waiting()
                self._changed.notify_all()
