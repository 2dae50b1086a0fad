"""What this process has used, where the system tells it."""

from __future__ import annotations

import importlib
import sys
from typing import Any

try:
    _resource: Any = importlib.import_module("resource")
except ImportError:
    _resource = None

#: Linux tells KiB, macOS bytes.
_UNIT = 1024 if sys.platform == "darwin" else 1


def peak_kib() -> int:
    """The most memory that it ever had (KiB); 0 = not known."""
    return int(_resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss) // _UNIT if _resource is not None else 0
