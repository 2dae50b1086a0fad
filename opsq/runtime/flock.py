"""Locks of whole files that the kernel frees when their holder dies; where there are none (Windows), nobody shares."""

from __future__ import annotations

import importlib
from typing import Any

try:
    _fcntl: Any = importlib.import_module("fcntl")
except ImportError:
    _fcntl = None


def take(descriptor: int) -> None:
    """Wait for the lock of an open file."""
    if _fcntl is not None:
        _fcntl.flock(descriptor, _fcntl.LOCK_EX)


def try_to_take(descriptor: int) -> bool:
    """Take the lock if nobody holds it; whether it is ours now."""
    if _fcntl is None:
        return True
    try:
        _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def let_go(descriptor: int) -> None:
    """Free it."""
    if _fcntl is not None:
        _fcntl.flock(descriptor, _fcntl.LOCK_UN)
