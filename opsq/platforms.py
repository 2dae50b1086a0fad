"""What programs ask about the system they run on: Celery's `celery.platforms`, as far as it is not the engine's own."""

from __future__ import annotations

import os
import platform
import signal

SYSTEM = platform.system()
IS_macOS = SYSTEM == "Darwin"
IS_WINDOWS = SYSTEM == "Windows"

#: Whether a program has said that it may run as root (the variable of the environment, or set here by the program).
C_FORCE_ROOT = bool(os.environ.get("C_FORCE_ROOT"))

#: Whether processes can be forked and looked after as the worker's pool prefork, the supervisor and the agent do it.
HAS_PROCESSES = SYSTEM == "Linux" and hasattr(os, "fork")

EX_OK = getattr(os, "EX_OK", 0)
EX_FAILURE = 1
EX_UNAVAILABLE = getattr(os, "EX_UNAVAILABLE", 69)
EX_USAGE = getattr(os, "EX_USAGE", 64)


def is_root() -> bool:
    """Whether this process may do everything."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def signal_name(number: int) -> str:
    """The name of a signal, such as SIGTERM."""
    return signal.Signals(number).name
