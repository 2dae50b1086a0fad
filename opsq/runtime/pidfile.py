"""Pidfiles "PID START_TICKS BOOT_ID": a pid that was given to another process since is never taken for ours.

Those that a user names hold the pid alone, for `kill $(cat FILE)` and systemd; they are locked while it runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from opsq.exceptions import UsageError
from opsq.runtime import flock
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


@contextmanager
def held_by_me(path: Path) -> Iterator[None]:
    """The file names this process, by its pid alone. Raises UsageError when the one that it names still runs."""
    fd = _lock_in_place(path)
    pid = _named(path)
    if fd is None or (pid is not None and _is_of(pid, path)):
        raise UsageError(f"the pidfile {path} belongs to process {pid}", why="it is running")
    os.ftruncate(fd, 0)
    os.write(fd, b"%d\n" % os.getpid())
    try:
        yield
    finally:
        if _named(path) == os.getpid():
            path.unlink(missing_ok=True)
        os.close(fd)


def _lock_in_place(path: Path) -> int | None:
    """The lock of the file that has this name now: whoever held it before may just have removed theirs."""
    while (fd := lock(path, 0o644)) is not None:
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        os.close(fd)
    return None


def _named(path: Path) -> int | None:
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _is_of(pid: int, path: Path) -> bool:
    """Whether the process may have written the file (Celery's do not lock theirs): it is older than the file."""
    import psutil

    try:
        return pid != os.getpid() and psutil.Process(pid).create_time() <= path.stat().st_mtime
    except (psutil.Error, OSError):
        return False


def lock(path: Path, mode: int = 0o600) -> int | None:
    """A descriptor that holds the file's lock, or None when another one holds it.

    The lock goes with the open file: a process that inherits the descriptor holds it too, and the kernel frees it
    when the last one has ended.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    if not flock.try_to_take(fd):
        os.close(fd)
        return None
    return fd
