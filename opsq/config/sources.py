"""Where settings come from: a module, an object, a mapping, a YAML file, the environment, `opsq.toml`."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opsq.config import toml_file, yaml_file
from opsq.config.names import BY_NAME, BY_OLD_NAME, meant, sort_out
from opsq.exceptions import ImproperlyConfigured, NotConfigured

#: Prefixes of variables of the environment, which win over all code; of two for one setting the first.
PREFIXES = ("OPSQ_", "CELERY_")
#: Settings whose variables are looked up each time, not only when the others are read.
PLACES = ("broker_url", "result_backend")


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one place, by new names; `others` are names that are no setting; `outside`: not the program's own."""

    source: str
    values: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)
    outside: bool = False


def from_environment(setting: str) -> tuple[Any, str] | None:
    """The value of a setting in the environment and the variable's name. Raises ImproperlyConfigured."""
    for prefix in PREFIXES:
        variable = prefix + setting.upper()
        if (text := os.environ.get(variable)) and not _is_celerys_option(variable, text):
            try:
                return BY_NAME[setting].parse(text), variable
            except ValueError as error:
                why = f"{setting}: {error}"
                raise ImproperlyConfigured(f"cannot use the environment's {variable}", why=why) from None
    return None


def all_from_environment() -> dict[str, tuple[Any, str]]:
    """The settings that the environment has: `CELERY_` or `OPSQ_` and the new name in upper case."""
    named = {name.partition("_")[2].lower() for name in os.environ if name.startswith(PREFIXES)}
    found = {name: from_environment(name) for name in sorted(named & BY_NAME.keys())}
    return {name: (each[0], f"environment {each[1]}") for name, each in found.items() if each is not None}


def _is_celerys_option(variable: str, text: str) -> bool:
    """`CELERY_BEAT_SCHEDULE` is also how Celery takes `celery beat --schedule FILE`."""
    return variable == "CELERY_BEAT_SCHEDULE" and not text.lstrip().startswith("{")


def from_object(source: Any, namespace: str | None = None) -> Layer:
    """Settings of a module (itself or its name), an object (also `module:name`), a class, a mapping, a YAML file.

    Raises ImproperlyConfigured.
    """
    name = source if isinstance(source, str) else _name_of(source)
    values, others = sort_out(_names_and_values(_found(source), namespace), namespace, name)
    if not namespace:
        warn_of_typing_errors(others, name)
    return Layer(name, values, others)


def from_project(start: os.PathLike[str]) -> Layer | None:
    """Settings at the top level of the `opsq.toml` that governs a folder."""
    path = toml_file.find(start)
    if path is None:
        return None
    values, _none = sort_out(toml_file.load(path).settings, source=str(path))
    return Layer(str(path), values, outside=True)


def warn_of_typing_errors(others: Mapping[str, Any], source: str) -> None:
    """Say which names look like settings that were mistyped."""
    for name in others:
        if known := meant(name):
            warnings.warn(NotConfigured(f"{source}: {name!r} is no setting, did you mean {known!r}?"), stacklevel=2)


def _found(source: Any) -> Any:
    if not isinstance(source, str):
        return source
    return yaml_file.load(Path(source)) if yaml_file.is_meant(source) else _import(source)


def _names_and_values(found: Any, namespace: str | None) -> Mapping[str, Any]:
    if isinstance(found, Mapping):
        return {str(name): value for name, value in found.items()}
    names = [name for name in dir(found) if not name.startswith("_")]
    if namespace:  # a framework's settings: only what is meant for us is looked at
        names = [name for name in names if name.startswith(namespace) or name in BY_OLD_NAME or name in BY_NAME]
    return {name: getattr(found, name) for name in names if hasattr(found, name)}


def _name_of(found: Any) -> str:
    name = getattr(found, "__name__", None)
    return name if isinstance(name, str) else f"a {type(found).__name__}"


def _import(name: str) -> Any:
    """What a dotted name means: a module, or something in one; the current directory is looked in too."""
    module, colon, attribute = name.partition(":")
    try:
        if not colon:
            try:
                return import_module(name)
            except ModuleNotFoundError as error:
                if "." not in name or error.name not in (name, name.rpartition(".")[0]):
                    raise
                module, _, attribute = name.rpartition(".")
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        hint = f"write {name[:-3]!r}, without .py" if name.endswith(".py") else ""
        raise ImproperlyConfigured(f"cannot read the configuration {name!r}", why=str(error), hint=hint) from error


def import_module(name: str) -> Any:
    """Import a module; the current directory is looked in first."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    return importlib.import_module(name)
