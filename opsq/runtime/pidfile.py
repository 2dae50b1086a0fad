"""Pidfiles "PID START_TICKS BOOT_ID": a pid that was given to another process since is never taken for ours."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from opsq.runtime.process import ProcessId, is_alive


def write(path: Path, process: ProcessId) -> None:
    """Name the process in the file; whoever reads meanwhile sees the old text or the new one."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(f"{process}\n")
    fresh.replace(path)


def read(path: Path) -> ProcessId | None:
    """The process that the file names, alive or not."""
    try:
        return ProcessId.parse(path.read_text())
    except (OSError, UnicodeDecodeError):
        return None


def holder(path: Path) -> ProcessId | None:
    """The process that the file names, if that very process still runs."""
    process = read(path)
    return process if process is not None and is_alive(process) else None


def lock(path: Path) -> int | None:
    """A descriptor that holds the file's lock, or None when another one holds it.

    The lock goes with the open file: a process that inherits the descriptor holds it too, and the kernel frees it
    when the last one has ended.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
