"""What processes have used, where the system tells it."""

from __future__ import annotations

import importlib
import mmap
import os
import sys
import time
from functools import partial
from types import SimpleNamespace
from typing import Any

#: Linux tells KiB, macOS bytes.
_UNIT = 1024 if sys.platform == "darwin" else 1
_HAS_PROC = os.path.exists("/proc/self/statm")


def _without_resource() -> Any:
    """The same where nobody tells the peak of memory."""
    return SimpleNamespace(ru_utime=time.process_time(), ru_stime=0.0, ru_maxrss=0)


try:
    _resource: Any = importlib.import_module("resource")
    #: `getrusage` of this process: `ru_utime`, `ru_stime` (seconds), `ru_maxrss`.
    used: Any = partial(_resource.getrusage, _resource.RUSAGE_SELF)
except ImportError:
    used = _without_resource


def peak_kib() -> int:
    """The most memory that this process ever had (KiB); 0 = not known."""
    return int(used().ru_maxrss) // _UNIT


def resident_bytes(pid: int) -> int | None:
    """What a process has in memory now; None when it is gone."""
    if not _HAS_PROC:
        import psutil

        try:
            return int(psutil.Process(pid).memory_info().rss)
        except psutil.Error:
            return None
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except (OSError, IndexError, ValueError):
        return None
