"""`opsq.toml` (or `opsq.yaml`, or `[tool.opsq]` in `pyproject.toml`): where it is and what it says.

An unknown name is an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opsq.config import yaml_file
from opsq.config.names import BY_NAME, BY_OLD_NAME, canonical
from opsq.config.options.hosts import AGENT_OPTIONS, HOSTS_OPTIONS
from opsq.config.options.monitor import MONITOR_OPTIONS
from opsq.config.options.programs import PROGRAM_OPTIONS, REDIS_OPTIONS
from opsq.exceptions import ImproperlyConfigured, did_you_mean
from opsq.project import find_project_file

_OWN_KEYS: Mapping[str, type] = {
    "app": str,
    "services": list,
    "worker": dict,
    "beat": dict,
    "monitor": dict,
    "agent": dict,
    "hosts": dict,
    "redis": dict,
    "programs": dict,
}
#: The variable that names the file whose `[worker]` table holds the flags of a worker under `opsq up`.
WORKER_FLAGS = "OPSQ_WORKER_FLAGS"
#: The programs of opsq itself; `services` chooses among them, `[programs.NAME]` changes them.
SERVICES = ("redis", "worker", "beat", "monitor", "agent")


@dataclass(frozen=True, slots=True)
class ProjectFile:
    """What the file says. `settings`: Celery's setting names at top level, `broker_url` among them."""

    path: Path
    app: str | None = None
    services: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    worker: Mapping[str, Any] = field(default_factory=dict)
    beat: Mapping[str, Any] = field(default_factory=dict)
    redis: Mapping[str, Any] = field(default_factory=dict)
    programs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    monitor: Mapping[str, Any] = field(default_factory=dict)
    agent: Mapping[str, Any] = field(default_factory=dict)
    hosts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def broker_url(self) -> str | None:
        """The broker that the file names."""
        for name, value in self.settings.items():
            if canonical(name) == "broker_url":
                return str(value)
        return None


def find(start: os.PathLike[str] | str) -> Path | None:
    """The file that governs a folder: the one that `OPSQ_CONFIG` names, else the nearest one upwards."""
    return find_project_file(Path(start))


def load(path: Path) -> ProjectFile:
    """Read the file and check every name in it. Raises ImproperlyConfigured."""
    content = _read(path)
    settings = {name: value for name, value in content.items() if name not in _OWN_KEYS}
    for name in settings:
        if canonical(name) is None:
            raise unknown(path, name, "setting", (*_OWN_KEYS, *BY_NAME, *BY_OLD_NAME))
    for name, kind in _OWN_KEYS.items():
        if name in content and not isinstance(content[name], kind):
            raise wrong(path, f"{name!r} must be {_WORDS[kind]}")
    services = content.get("services")
    for name in services or ():
        if name not in SERVICES:
            raise unknown(path, name, "service", SERVICES)
    _check_table(path, "redis", content.get("redis", {}), [option.name for option in REDIS_OPTIONS])
    _check_table(path, "monitor", content.get("monitor", {}), [option.name for option in MONITOR_OPTIONS])
    _check_table(path, "agent", content.get("agent", {}), [option.name for option in AGENT_OPTIONS])
    _check_table(path, "hosts", content.get("hosts", {}), [option.name for option in HOSTS_OPTIONS])
    if not isinstance(content.get("hosts", {}).get("groups", {}), dict):
        raise wrong(path, "'hosts.groups' must be a table")
    programs = content.get("programs", {})
    for name, table in programs.items():
        if not isinstance(table, dict):
            raise wrong(path, f"{'programs.' + name!r} must be a table")
        _check_table(path, f"programs.{name}", table, [option.name for option in PROGRAM_OPTIONS])
    return ProjectFile(
        path,
        content.get("app"),
        None if services is None else tuple(services),
        settings,
        content.get("worker", {}),
        content.get("beat", {}),
        content.get("redis", {}),
        programs,
        content.get("monitor", {}),
        content.get("agent", {}),
        content.get("hosts", {}),
    )


_WORDS: Mapping[type, str] = {str: "text", list: "a list", dict: "a table"}


def wrong(path: Path, why: str, hint: str = "") -> ImproperlyConfigured:
    """The error for a file that cannot be used."""
    return ImproperlyConfigured(f"cannot use {path}", why=why, hint=hint)


def unknown(path: Path, name: str, kind: str, known: Iterable[str]) -> ImproperlyConfigured:
    """The error for a name that means nothing, with the nearest one that does."""
    return wrong(path, f"{name!r} is no {kind}", did_you_mean(name, known))


def _check_table(path: Path, table: str, content: Mapping[str, Any], known: Iterable[str]) -> None:
    for name in content:
        if name not in known:
            raise unknown(path, name, f"key of [{table}]", known)


def _read(path: Path) -> dict[str, Any]:
    if yaml_file.is_meant(path.name):
        return yaml_file.load(path)
    import tomllib  # most workers have no such file

    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise wrong(path, (error.strerror or str(error)).lower()) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise wrong(path, f"not valid TOML: {error}") from None
    if path.name == "pyproject.toml":
        content = content.get("tool", {}).get("opsq", {})
    return content
