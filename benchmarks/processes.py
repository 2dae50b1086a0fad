"""Trees of processes as /proc tells: who belongs to one, the CPU and the context switches that it has used."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


def tree(pid: int) -> list[int]:
    """A process and all that come of it."""
    children: dict[int, list[int]] = {}
    for process, parent in _parents():
        children.setdefault(parent, []).append(process)
    found, todo = [], [pid]
    while todo:
        process = todo.pop()
        found.append(process)
        todo += children.get(process, ())
    return found


def cpu_s(pid: int) -> float:
    """Seconds of CPU of a process and all that come of it, those that have ended included (to 10 ms)."""
    ticks = 0
    for process in tree(pid):
        try:
            stat = (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile: its parent will tell of it
            continue
        ticks += sum(map(int, stat[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def sleeps(pid: int) -> bool:
    """Whether it waits for something."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "S"


def _parents() -> Iterator[tuple[int, int]]:
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended meanwhile
                pass


@dataclass(frozen=True)
class Usage:
    """What processes have used since their starts."""

    cpu_s: float
    switches: int

    def since(self, before: Usage) -> Usage:
        """What was used since then."""
        return Usage(self.cpu_s - before.cpu_s, self.switches - before.switches)


def usage(pids: list[int]) -> Usage:
    """Of these processes with all their threads; CPU to the nanosecond (schedstat), not in ticks of 10 ms."""
    cpu_ns = switches = 0
    for pid in pids:
        for thread in (PROC / str(pid) / "task").iterdir():
            cpu_ns += int((thread / "schedstat").read_text().split()[0])
            switches += sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", (thread / "status").read_text())))
    return Usage(cpu_ns / 1e9, switches)
