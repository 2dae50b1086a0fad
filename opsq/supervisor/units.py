"""All that a program started: found by its mark in the environment, its session and its process group; and ended.

What cleared its environment and left both escapes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from opsq.runtime.process import ProcessId, boot_id, send_signal

MARK = "OPSQ_PROGRAM"
#: What forks faster than it is stopped is left after this many looks.
_MOST_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Unit:
    """A program by its mark, and its main process, alive or not."""

    mark: str
    main: ProcessId | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One process of /proc."""

    process: ProcessId
    parent: int
    group: int
    session: int
    ended: bool
    cpu_ticks: int
    memory_bytes: int


def mark_of(name: str, key: str) -> str:
    """The value of the mark for a program of the state directory with this key."""
    return f"{name}@{key}"


def processes() -> Iterator[Row]:
    """All processes."""
    boot, page = boot_id(), os.sysconf("SC_PAGE_SIZE")
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                words = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        yield Row(
            ProcessId(int(entry), int(words[19]), boot),
            int(words[1]),
            int(words[2]),
            int(words[3]),
            words[0] in (b"Z", b"X"),
            int(words[11]) + int(words[12]),
            int(words[21]) * page,
        )


def kill(units: Collection[Unit]) -> int:
    """Kill all that is left of these units; how many processes that were.

    What is found is stopped before the next look, so that it starts nothing more; killed when nothing new is found.
    """
    found: dict[ProcessId, None] = {}
    for _round in range(_MOST_ROUNDS):
        fresh = [process for process in members(units) if process not in found]
        if not fresh:
            break
        for process in fresh:
            _signal(process, signal.SIGSTOP)
            found[process] = None
    for process in found:
        _signal(process, signal.SIGKILL)
    return len(found)


def members(units: Collection[Unit]) -> list[ProcessId]:
    """The living processes of these units; never the one that asks."""
    marks = {f"{MARK}={unit.mark}".encode() for unit in units}
    mains = {unit.main.pid: unit.main for unit in units if unit.main is not None}
    rows = [row for row in processes() if not row.ended and row.process.pid != os.getpid()]
    # The number of an ended main process may lead another session by now: then only the mark counts.
    for row in rows:
        if row.process.pid in mains and row.process != mains[row.process.pid]:
            del mains[row.process.pid]
    return [
        row.process
        for row in rows
        if row.session in mains or row.group in mains or (marks and _environment(row.process.pid) & marks)
    ]


def leaders(traces: Mapping[str, tuple[str, Path]]) -> dict[str, ProcessId]:
    """Main processes that run of these programs, found by their mark or by the FIFO that is their standard output.

    A program may overwrite its environment (Redis does); its output it keeps.
    """
    marks = {f"{MARK}={mark}".encode(): name for name, (mark, _fifo) in traces.items()}
    fifos = {identity: name for name, (_mark, fifo) in traces.items() if (identity := _file(fifo)) is not None}
    found: dict[str, ProcessId] = {}
    if not traces:
        return found
    for row in processes():
        pid = row.process.pid
        if row.session != pid or row.ended or pid == os.getpid():
            continue
        name = next((marks[line] for line in _environment(pid) if line in marks), None)
        output = _file(Path(f"/proc/{pid}/fd/1"))
        if name is None and output is not None:
            name = fifos.get(output)
        if name is not None:
            found[name] = row.process
    return found


def kill_instance(key: str) -> None:
    """Kill everything that carries the mark of any program of this state directory."""
    start, end = f"{MARK}=".encode(), f"@{key}".encode()
    for row in processes():
        if any(line.startswith(start) and line.endswith(end) for line in _environment(row.process.pid)):
            _signal(row.process, signal.SIGKILL)


def _file(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _environment(pid: int) -> set[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return {line for line in file.read().split(b"\0") if line.startswith(MARK.encode())}
    except OSError:
        return set()


def _signal(process: ProcessId, signum: int) -> None:
    try:
        send_signal(process, signum)
    except PermissionError:
        pass
