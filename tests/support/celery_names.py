"""Asks a Celery for its public names; run by a Python that has it. Prints one JSON object."""

from __future__ import annotations

import importlib
import inspect
import json
from typing import Any

#: What programs import.
# fmt: off
MODULES = [
    "celery", "celery._state", "celery.app", "celery.app.base", "celery.app.control", "celery.app.log",
    "celery.app.registry", "celery.app.task", "celery.app.utils", "celery.backends.base", "celery.beat",
    "celery.bin.celery", "celery.canvas", "celery.concurrency", "celery.contrib.abortable",
    "celery.contrib.migrate", "celery.contrib.rdb", "celery.contrib.testing.app", "celery.contrib.testing.tasks",
    "celery.contrib.testing.worker", "celery.events", "celery.events.receiver", "celery.events.snapshot",
    "celery.events.state", "celery.exceptions", "celery.loaders.base", "celery.local", "celery.platforms",
    "celery.result", "celery.schedules", "celery.signals", "celery.states", "celery.utils",
    "celery.utils.collections", "celery.utils.dispatch", "celery.utils.functional", "celery.utils.imports",
    "celery.utils.log", "celery.utils.nodenames", "celery.utils.serialization", "celery.utils.text",
    "celery.utils.time", "celery.worker", "celery.worker.autoscale", "celery.worker.consumer",
    "celery.worker.control", "celery.worker.request", "celery.worker.state", "kombu", "kombu.common",
    "kombu.compression", "kombu.entity", "kombu.exceptions", "kombu.serialization", "kombu.utils.json",
    "kombu.utils.uuid",
]
# fmt: on

#: Classes whose members programs use.
CLASSES = {
    "App": "celery:Celery",
    "Task": "celery:Task",
    "Signature": "celery:Signature",
    "AsyncResult": "celery.result:AsyncResult",
    "EagerResult": "celery.result:EagerResult",
    "GroupResult": "celery.result:GroupResult",
    "ResultSet": "celery.result:ResultSet",
    "Control": "celery.app.control:Control",
    "Inspect": "celery.app.control:Inspect",
    "crontab": "celery.schedules:crontab",
    "schedule": "celery.schedules:schedule",
    "solar": "celery.schedules:solar",
    "Context": "celery.app.task:Context",
}


def public(module: Any) -> list[str]:
    """What `__all__` says, else what is defined there; of signals all of them."""
    names = set(getattr(module, "__all__", ()))
    for name, value in vars(module).items():
        own = not hasattr(module, "__all__") and getattr(value, "__module__", None) == module.__name__
        if own or (module.__name__ == "celery.signals" and type(value).__name__ == "Signal"):
            names.add(name)
    return sorted(name for name in names if not name.startswith("_"))


def members(path: str) -> list[str]:
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name)
    return sorted(each for each in dir(found) if not each.startswith("_") and not hasattr(dict, each))


def errors() -> dict[str, list[str]]:
    """Each error with the names of its bases."""
    found = vars(importlib.import_module("celery.exceptions"))
    kinds = {name: kind for name, kind in found.items() if inspect.isclass(kind) and issubclass(kind, BaseException)}
    return {name: [base.__name__ for base in kind.__mro__[1:-2]] for name, kind in sorted(kinds.items())}


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "modules": {name: public(importlib.import_module(name)) for name in MODULES},
                "members": {name: members(path) for name, path in CLASSES.items()},
                "errors": errors(),
            },
            indent=1,
        )
    )
