"""CPU and memory of programs with all that descends from them, by one look at /proc when somebody asks."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from opsq.runtime.process import ProcessId, start_ticks
from opsq.supervisor import units

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
#: A look is good for this long.
_KEPT_S = 2.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one program: CPU since the look before (or since its start), memory now."""

    cpu_percent: float
    memory_bytes: int
    cpu_s: float


class Samples:
    """The last look and the one before."""

    def __init__(self) -> None:
        self._at, self._usage = 0.0, dict[ProcessId, Usage]()

    def take(self, mains: Collection[ProcessId]) -> Mapping[ProcessId, Usage]:
        """What each program uses, by its main process."""
        now = time.monotonic()
        if now - self._at < _KEPT_S and all(main in self._usage for main in mains):
            return self._usage
        totals = _totals(mains)
        up_s = uptime_s()
        fresh: dict[ProcessId, Usage] = {}
        for main, (cpu_s, memory_bytes) in totals.items():
            before = self._usage.get(main)
            passed_s = now - self._at if before else up_s - main.start_ticks / _TICKS_PER_S
            used_s = cpu_s - before.cpu_s if before else cpu_s
            percent = round(max(0.0, 100 * used_s / passed_s), 1) if passed_s > 0 else 0.0
            fresh[main] = Usage(percent, memory_bytes, cpu_s)
        self._at, self._usage = now, fresh
        return fresh


def _totals(mains: Collection[ProcessId]) -> dict[ProcessId, tuple[float, int]]:
    rows = {row.process.pid: row for row in units.processes() if not row.ended}
    owner: dict[int, ProcessId] = {main.pid: main for main in mains}
    cpu_ticks, memory = dict.fromkeys(mains, 0), dict.fromkeys(mains, 0)
    for row in rows.values():
        main = owner.get(row.session) or _ancestor(row, rows, owner)
        if main is not None:
            cpu_ticks[main] += row.cpu_ticks
            memory[main] += row.memory_bytes
    return {main: (cpu_ticks[main] / _TICKS_PER_S, memory[main]) for main in mains}


def _ancestor(row: units.Row, rows: Mapping[int, units.Row], owner: Mapping[int, ProcessId]) -> ProcessId | None:
    seen = 0
    while row.process.pid not in owner:
        parent = rows.get(row.parent)
        seen += 1
        if parent is None or seen > len(rows):
            return None
        row = parent
    return owner[row.process.pid]


def uptime_s() -> float:
    """Seconds since boot."""
    with open("/proc/uptime") as file:
        return float(file.read().split()[0])


def started_at(pid: int) -> float | None:
    """When a process began, in Unix seconds."""
    ticks = start_ticks(pid)
    return None if ticks is None else round(time.time() - uptime_s() + ticks / _TICKS_PER_S, 2)
