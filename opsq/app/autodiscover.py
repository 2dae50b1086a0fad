"""Import the modules that define tasks: `imports`, `include`, and what `autodiscover_tasks` was told."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from opsq.config.sources import import_module
from opsq.exceptions import ImproperlyConfigured


def import_by_name(names: Any) -> list[Any]:
    """Import modules by name; one name may stand alone."""
    return [import_module(name) for name in ([names] if isinstance(names, str) else names or ())]


def import_related(packages: Iterable[str], related: str | None) -> list[Any]:
    """Import `<package>.<related>` of each package that has it.

    A name may also be a module, or a task's full name: then its module is imported. What has no such module is passed
    over; an error inside one is raised.
    """
    return [found for package in packages if (found := _import_related(package, related)) is not None]


def _import_related(name: str, related: str | None) -> Any:
    package = name
    module = None
    while module is None:
        try:
            module = import_module(package)
        except ModuleNotFoundError as error:
            if not _is_missing(error, package):
                raise
            package = package.rpartition(".")[0]
            if not package:
                raise ImproperlyConfigured(
                    f"cannot import {name!r}, which autodiscover_tasks names", why=str(error)
                ) from error
    if not related:
        return module
    wanted = f"{package}.{related}"
    try:
        return importlib.import_module(wanted)
    except ModuleNotFoundError as error:
        if error.name != wanted:
            raise
        return None


def _is_missing(error: ModuleNotFoundError, name: str) -> bool:
    """Whether it is this very module (or one of its packages) that does not exist, not one that it imports."""
    return error.name is not None and (name == error.name or name.startswith(f"{error.name}."))
