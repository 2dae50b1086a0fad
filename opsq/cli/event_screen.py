"""The screen of `opsq events`: the workers, and the latest tasks, as their events tell them."""

from __future__ import annotations

import time
from collections import OrderedDict
from datetime import datetime

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from opsq.cli.output import STYLES, harmless
from opsq.events.event import Event
from opsq.events.state import State, Task

#: The least time between two drawings (seconds).
EVERY_S = 0.25
#: The most workers that are shown; the rest of the screen is for tasks.
WORKERS = 6


class Screen:
    """What is drawn. `state` is what is known, `take` says which events are wanted."""

    def __init__(self, color: bool) -> None:
        self.state = State(max_tasks=2000)
        self.console = Console(no_color=not color, highlight=False)
        self._latest: OrderedDict[str, None] = OrderedDict()
        self._drawn = 0.0
        self._since = time.monotonic()
        self._ended: list[tuple[float, int]] = []
        self._count = 0

    def take(self, event: Event) -> None:
        """An event that is wanted."""
        if event["type"] in ("task-succeeded", "task-failed"):
            self._count += 1
        task_id = event.get("uuid")
        if isinstance(task_id, str):
            self._latest[task_id] = None
            self._latest.move_to_end(task_id)
            if len(self._latest) > 200:
                self._latest.popitem(last=False)

    def due(self) -> bool:
        """Whether it is time to draw."""
        return time.monotonic() - self._drawn >= EVERY_S

    def draw(self, trouble: str) -> Group:
        """The screen as it is now."""
        self._drawn = time.monotonic()
        height = self.console.size.height
        workers = sorted(self.state.workers.values(), key=lambda worker: (not worker.alive(), worker.hostname))
        alive = sum(worker.alive() for worker in workers)
        head = f"{alive} of {len(workers)} workers alive   {self.state.event_count} events   {self._rate():.1f} tasks/s"
        top = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", expand=False)
        for title in ("WORKER", "STATE", "RUNNING", "DONE", "LOAD", "SOFTWARE"):
            top.add_column(title, no_wrap=True, justify="right" if title in ("RUNNING", "DONE") else "left")
        for worker in workers[:WORKERS]:
            load = " ".join(f"{one:.2f}" for one in worker.loadavg or ())
            state = Text("alive", "green") if worker.alive() else Text("gone", "red")
            software = harmless(f"{worker.sw_ident or ''} {worker.sw_ver or ''}".strip())
            top.add_row(
                harmless(worker.hostname), state, _number(worker.active), _number(worker.processed), load, software
            )
        room = max(height - min(len(workers), WORKERS) - 6, 1)
        note = Text(f"lost the broker: {trouble}", "red") if trouble else Text("Ctrl-C ends", "dim")
        return Group(Text(head), note, top, Text(), self._tasks(room))

    def _tasks(self, room: int) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", expand=True)
        table.add_column("TIME", no_wrap=True, width=8)
        table.add_column("STATE", no_wrap=True, width=8)
        table.add_column("TASK", no_wrap=True, ratio=2, overflow="ellipsis")
        table.add_column("ID", no_wrap=True, width=13, overflow="ellipsis")
        table.add_column("WHAT", no_wrap=True, ratio=3, overflow="ellipsis")
        for task_id in list(reversed(self._latest))[:room]:
            task = self.state.tasks.get(task_id)
            if task is not None:
                table.add_row(
                    f"{datetime.fromtimestamp(task.timestamp):%H:%M:%S}",
                    Text(task.state, STYLES.get(task.state, "")),
                    Text(harmless(task.name or "-")),
                    Text(harmless(task_id)),
                    Text(harmless(_what(task))),
                )
        return table

    def _rate(self) -> float:
        """Tasks that ended a second, over the last five seconds."""
        now = time.monotonic()
        self._ended = [each for each in self._ended if now - each[0] <= 5.0] or [(self._since, 0)]
        first_at, first = self._ended[0]
        self._ended.append((now, self._count))
        return (self._count - first) / max(now - first_at, 0.1)


def _what(task: Task) -> str:
    """The most telling of what is known."""
    if task.exception is not None and task.state in ("FAILURE", "RETRY"):
        return task.exception
    if task.result is not None:
        return f"{task.result}  ({task.runtime:.3f} s)" if task.runtime is not None else task.result
    return f"{task.args or ''} {task.kwargs if task.kwargs not in (None, '{}') else ''}".strip()


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)
