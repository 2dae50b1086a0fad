"""Runs `opsq` on a system that is not Linux, as far as this one can play it: what other systems lack is taken away.

What is opsq's own does not find the modules; what the standard library itself needs of them stays.
"""

from __future__ import annotations

import builtins
import os
import signal
import socket
import sys
from typing import Any

MODULES = ("fcntl", "pwd", "grp", "resource", "termios")
NAMES = (
    *((os, name) for name in ("fork", "forkpty", "pipe2", "register_at_fork", "geteuid", "getuid", "getloadavg")),
    *((os, name) for name in ("memfd_create", "pidfd_open", "sched_getaffinity", "O_CLOEXEC", "setuid", "setgid")),
    *((signal, name) for name in ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGQUIT", "pidfd_send_signal")),
    (socket, "AF_UNIX"),
)

_import = builtins.__import__


def _without(name: str, globals: Any = None, *rest: Any, **named: Any) -> Any:
    importer = str((globals or {}).get("__name__", ""))
    if name in MODULES and importer.partition(".")[0] in ("opsq", "importlib"):
        raise ImportError(f"there is no module {name!r} here")
    return _import(name, globals, *rest, **named)


def take_away() -> None:
    """From now on this process has nothing of what only Unix has."""
    import asyncio  # noqa: F401 (what others have imported keeps what it found)
    import importlib
    import logging.handlers  # noqa: F401
    import platform
    import tempfile  # noqa: F401

    import platformdirs  # noqa: F401
    import psutil  # noqa: F401
    import redis  # noqa: F401
    import uvicorn  # noqa: F401

    real = importlib.import_module

    def import_module(name: str, package: str | None = None) -> Any:
        if name in MODULES:
            raise ImportError(f"there is no module {name!r} here")
        return real(name, package)

    importlib.import_module = import_module
    builtins.__import__ = _without
    platform.system = lambda: "Windows"
    pair, family = socket.socketpair, socket.AF_UNIX
    socket.socketpair = lambda: pair(family)  # which other systems make of two TCP sockets
    for holder, name in NAMES:
        if hasattr(holder, name):
            delattr(holder, name)


if __name__ == "__main__":
    take_away()
    from opsq.cli.main import main

    sys.exit(main())
