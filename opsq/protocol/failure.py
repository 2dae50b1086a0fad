"""An exception as data and back again, as Celery stores it in a result. Reading it imports nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from opsq import exceptions
from opsq.exceptions import DecodeError, EncodeError, SecurityError
from opsq.protocol import jsontypes

#: Where Celery's clients look for the classes that opsq has too; classes of opsq alone keep their own module.
_CELERY = "celery.exceptions"
_BILLIARD = "billiard.exceptions"
_KOMBU = "kombu.exceptions"
_HOMES: dict[str, str] = {
    **dict.fromkeys(("SoftTimeLimitExceeded", "TimeLimitExceeded", "WorkerLostError", "Terminated"), _BILLIARD),
    **dict.fromkeys(("ContentDisallowed", "DecodeError", "EncodeError", "OperationalError"), _KOMBU),
    **dict.fromkeys(
        (
            *("AlreadyRegistered", "BackendError", "BackendGetMetaError", "BackendStoreError", "ChordError"),
            *("Ignore", "ImproperlyConfigured", "IncompleteStream", "InvalidTaskError", "MaxRetriesExceededError"),
            *("NotRegistered", "QueueNotFound", "Reject", "Retry", "SecurityError", "TaskError", "TaskPredicate"),
            *("TaskRevokedError", "TimeoutError", "WorkerShutdown", "WorkerTerminate", "CeleryError", "CeleryWarning"),
            *("AlwaysEagerIgnored", "DuplicateNodenameWarning", "FixupWarning", "NotConfigured"),
            *("DuplicateTaskNameWarning", "SecurityWarning", "CDeprecationWarning", "CPendingDeprecationWarning"),
        ),
        _CELERY,
    ),
}


def to_data(error: BaseException) -> dict[str, Any]:
    """What is stored of an exception: its class, module and arguments (by `repr` where JSON cannot hold them).

    The reason of an error of ours is no argument, and belongs to what it says.
    """
    kind, args = type(error), error.args
    if isinstance(error, exceptions.OpsqError) and error.why:
        args = (str(error), *args[1:])
    name, module = kind.__qualname__, kind.__module__
    if module == exceptions.__name__:
        name = "CeleryError" if kind is exceptions.OpsqError else name
        module = _HOMES.get(name, module)
    return {"exc_type": name, "exc_message": _writable(args), "exc_module": module}


def _writable(args: tuple[Any, ...]) -> list[Any]:
    found = []
    for value in args:
        try:
            jsontypes.dumps(value)
        except EncodeError:
            value = _shown(value)
        found.append(value)
    return found


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # the class is a user's; the failure must be stored all the same
        return f"<{type(value).__name__}, whose repr failed: {type(error).__name__}>"


def from_data(data: Mapping[str, Any]) -> BaseException:
    """The exception again: of its own class if that is imported here, else of one made up under the same name.

    Raises SecurityError if the name is that of something else than an exception, DecodeError if it is no stored one.
    """
    try:
        name, module = data["exc_type"], data.get("exc_module")
    except (KeyError, TypeError, AttributeError):
        raise DecodeError("cannot read the stored exception", why="it names no class") from None
    if not isinstance(name, str) or not isinstance(module, str | None):
        raise DecodeError("cannot read the stored exception", why="the name of its class is no text")
    message = data.get("exc_message", "")
    kind = _find(name, module)
    if not isinstance(kind, type) or not issubclass(kind, BaseException):
        raise SecurityError(f"refusing to make a {module}.{name} from a stored result", why="it is no exception")
    try:
        return kind(*message) if isinstance(message, list | tuple) else kind(message)
    except Exception:  # the class wants other arguments than those that it keeps
        return Exception(f"{kind}({message})")


def _find(name: str, module: str | None) -> Any:
    """The class of that name in a module that is already imported, else a new one."""
    found: Any = sys.modules.get(module) if module else None
    if module in (_CELERY, _BILLIARD, _KOMBU) and hasattr(exceptions, name):
        found = exceptions
    for part in name.split("."):
        if isinstance(found, type):
            found = getattr(found, part, None)
        else:
            found = getattr(found, "__dict__", {}).get(part)  # never a module's __getattr__: it may import
        if found is None:
            return _made_up(name, module)
    return found


def _made_up(name: str, module: str | None) -> type[Exception]:
    made: type[Exception] = type(name.rpartition(".")[2], (Exception,), {"__module__": module or _CELERY})
    made.__qualname__ = name
    return made
