"""A process by pid, start ticks and boot id: is it alive, signal it, wait for its end. Linux only.

A pid alone may belong to somebody else by now. So a pidfd is opened first and the start time compared then: from
that moment the descriptor means this process and no other. A zombie counts as ended.
"""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass
from functools import cache
from typing import Self

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process of one boot; its text form is "PID START_TICKS BOOT_ID"."""

    pid: int
    start_ticks: int
    boot_id: str

    def __str__(self) -> str:
        return f"{self.pid} {self.start_ticks} {self.boot_id}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The process that such a text names; None when it is none."""
        try:
            pid, start_ticks, boot = text.split()
            return cls(int(pid), int(start_ticks), boot)
        except ValueError:
            return None


@cache
def boot_id() -> str:
    """The kernel's name for this boot."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot (field 22 of its stat); None when there is no such pid."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        return None


def identify(pid: int) -> ProcessId | None:
    """The process that has this pid now."""
    ticks = start_ticks(pid)
    return None if ticks is None else ProcessId(pid, ticks, boot_id())


def myself() -> ProcessId:
    """The process that asks."""
    found = identify(os.getpid())
    assert found is not None, "/proc is not mounted"
    return found


def open_pidfd(process: ProcessId) -> int | None:
    """A descriptor that means this very process; None when it has gone, or its pid is another's by now."""
    if process.boot_id != boot_id():
        return None
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return None
    if start_ticks(process.pid) != process.start_ticks or _ended(fd, 0):
        os.close(fd)
        return None
    return fd


def is_alive(process: ProcessId) -> bool:
    """Whether this very process still runs."""
    fd = open_pidfd(process)
    if fd is None:
        return False
    os.close(fd)
    return True


def send_signal(process: ProcessId, signum: int) -> bool:
    """Signal this very process; False when it has gone. Raises PermissionError."""
    fd = open_pidfd(process)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, signum)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def signal_number(wish: int | str) -> int:
    """The number of a signal that is named (TERM, SIGTERM) or numbered. Raises ValueError."""
    text = str(wish).upper()
    try:
        return int(signal.Signals(int(text)) if text.isdigit() else signal.Signals["SIG" + text.removeprefix("SIG")])
    except (KeyError, ValueError):
        raise ValueError(f"{wish!r} is no signal") from None


def wait_end(process: ProcessId, timeout_s: float) -> bool:
    """Wait until this very process has ended; False when it still runs after `timeout_s`."""
    fd = open_pidfd(process)
    if fd is None:
        return True
    try:
        return _ended(fd, timeout_s)
    finally:
        os.close(fd)


def end(process: ProcessId, grace_s: float) -> bool:
    """SIGTERM, and after `grace_s` SIGKILL; True when it has ended."""
    send_signal(process, signal.SIGTERM)
    if wait_end(process, grace_s):
        return True
    send_signal(process, signal.SIGKILL)
    return wait_end(process, 5.0)


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent ends; kept over exec."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _ended(pidfd: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    while True:
        left_s = max(0.0, deadline - time.monotonic())
        if poll.poll(left_s * 1000):
            return True
        if time.monotonic() >= deadline:
            return False
