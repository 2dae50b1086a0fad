"""What this process has used, where the system tells it."""

from __future__ import annotations

import importlib
import sys
import time
from functools import partial
from types import SimpleNamespace
from typing import Any

#: Linux tells KiB, macOS bytes.
_UNIT = 1024 if sys.platform == "darwin" else 1


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
    """The most memory that it ever had (KiB); 0 = not known."""
    return int(used().ru_maxrss) // _UNIT
