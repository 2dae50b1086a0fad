"""A program's own code failed when it was imported: say in one sentence what failed, and in which line."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from opsq.exceptions import UsageError

_OWN_CODE = str(Path(__file__).parents[1])


def broken(what: str, error: BaseException) -> UsageError:
    """The error that tells the user why `what` could not be done."""
    if isinstance(error, SyntaxError):
        why = f"{error.msg} ({_short(error.filename)}, line {error.lineno})"
    else:
        place = _place(error)
        if isinstance(error, ModuleNotFoundError) and "site-packages" in place:
            place = ""  # a framework was told the name
        if isinstance(error, SystemExit):
            words = f"its import ended with exit code {error.code}"
        else:
            words = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        why = words + (f" ({place})" if place else "")
    return UsageError(what, why=why)


def _place(error: BaseException) -> str:
    """The line of the program's code from which the error came."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<", _OWN_CODE)) and "importlib" not in frame.filename:
            return f"{_short(frame.filename)}, line {frame.lineno}"
    return ""


def _short(filename: str | None) -> str:
    if not filename:
        return "?"
    relative = os.path.relpath(filename)
    return filename if relative.startswith("..") else relative
