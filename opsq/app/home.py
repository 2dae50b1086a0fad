"""Where an app lives on disk, and what is found from there: its `opsq.toml` and a private Redis."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opsq.config.broker import Found, is_in_memory
from opsq.config.sources import Layer, from_project
from opsq.runtime import statedir


def caller_outside() -> dict[str, Any]:
    """The globals of the first calling module that is not opsq's own."""
    frame: Any = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "opsq":
        frame = frame.f_back
    found: dict[str, Any] = frame.f_globals
    return found


def home_of(module: dict[str, Any]) -> Path | None:
    """The folder that holds the top-level package of a module; None for code that is in no file."""
    file = module.get("__file__")
    if not file:
        return None
    spec = module.get("__spec__")
    name = str(spec.name if spec is not None else module.get("__name__", ""))
    path = Path(file).absolute()
    levels = 0 if name == "__main__" else name.count(".") + (path.stem == "__init__")
    return path.parents[min(levels, len(path.parents) - 1)]


def starting_points(home: Path | None) -> Iterator[Path]:
    """Where to begin looking upwards: the app's folder, then the current one."""
    here = Path.cwd()
    if home is not None and home != here:
        yield home
    yield here


def project_settings(home: Path | None) -> list[Layer]:
    """The settings of the `opsq.toml` that governs the app, if there is one."""
    for start in starting_points(home):
        if (layer := from_project(start)) is not None:
            return [layer]
    return []


def reachable(found: Found) -> Found:
    """A place that can be connected to: `memory://` is a Redis that is started for this process."""
    if not is_in_memory(found.url):
        return found
    from opsq.runtime import redis_in_memory  # for tests only, and it loads much

    return Found(redis_in_memory.url(), found.source)


def private_redis(home: Path | None = None) -> str | None:
    """The URL of the private Redis that runs for the app's folder, or for the current one."""
    for start in starting_points(home):
        if (url := statedir.private_redis_url(statedir.find(None, start=start))) is not None:
            return url
    return None
