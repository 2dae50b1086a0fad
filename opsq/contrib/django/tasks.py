"""Where settings find the backend of Django's own task interface: `opsq.contrib.django.tasks.OpsqBackend`.

Each app of INSTALLED_APPS is searched for a module `tasks`, this one too, also where that interface is not installed:
so nothing is imported before somebody asks for the backend.
"""

from __future__ import annotations

import importlib
from typing import Any

#: How settings name it.
BACKEND = f"{__name__}.OpsqBackend"


def __getattr__(name: str) -> Any:
    if name != "OpsqBackend":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("opsq.contrib.django.tasks_backend").OpsqBackend
