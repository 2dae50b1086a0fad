"""opsq: a task queue that speaks Celery's protocol over Redis, with its supervisor. Names are loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from opsq._version import __version__

if TYPE_CHECKING:
    from opsq._state import current_app as current_app
    from opsq._state import current_task as current_task
    from opsq.app.base import App as App
    from opsq.app.registry import shared_task as shared_task
    from opsq.app.task import Task as Task
    from opsq.canvas import Signature as Signature
    from opsq.canvas import chain as chain
    from opsq.canvas import chord as chord
    from opsq.canvas import chunks as chunks
    from opsq.canvas import group as group
    from opsq.canvas import maybe_signature as maybe_signature
    from opsq.canvas import signature as signature
    from opsq.canvas import subtask as subtask
    from opsq.canvas import xmap as xmap
    from opsq.canvas import xstarmap as xstarmap
    from opsq.protocol.routing import Broadcast as Broadcast
    from opsq.protocol.routing import Exchange as Exchange
    from opsq.protocol.routing import Queue as Queue
    from opsq.protocol.routing import binding as binding
    from opsq.result.single import AsyncResult as AsyncResult
    from opsq.utils import uuid as uuid

    Celery = App

_HOMES = {
    "App": "opsq.app.base",
    "Celery": "opsq.app.base",
    "shared_task": "opsq.app.base",
    "Task": "opsq.app.task",
    "AsyncResult": "opsq.result.single",
    "current_app": "opsq.app.base",
    "current_task": "opsq.app.base",
    "uuid": "opsq.utils",
    **dict.fromkeys(("Broadcast", "Exchange", "Queue", "binding"), "opsq.protocol.routing"),
    **dict.fromkeys(
        (
            *("Signature", "chain", "chord", "chunks", "group", "maybe_signature", "signature", "subtask"),
            *("xmap", "xstarmap"),
        ),
        "opsq.canvas",
    ),
}

#: Modules that are there without an import of their own, as Celery's are once there is an app.
_MODULES = ("app", "canvas", "exceptions", "result", "schedules", "signals", "states", "utils")

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"opsq.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'opsq' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
