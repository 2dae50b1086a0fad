"""Checks of this machine: the state directory, pidfiles, how the monitor may be reached."""

from __future__ import annotations

import ipaddress
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opsq.cli.doctor.finding import Finding, Look
from opsq.cli.output import size
from opsq.config import toml_file
from opsq.runtime import pidfile

#: Less room than this (bytes) and logs or the private Redis' file soon fill the disk.
ROOM = 500 * 2**20


def state_directory(look: Look) -> Iterator[Finding]:
    """May it be written, by this user alone, and is there room?"""
    root = look.state_dir.root
    place = next(path for path in (root, *root.parents) if path.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding(
            f"the state directory {root} cannot be written",
            "sockets, pidfiles and logs have no place",
            "name another one with --state-dir or OPSQ_STATE_DIR",
        )
        return
    run = look.state_dir.run
    if run.is_dir() and run.stat().st_mode & 0o077:
        yield Finding(
            f"others may enter {run}", "whoever can open its sockets commands your programs", f"chmod 700 {run}"
        )
    free = shutil.disk_usage(place).free
    if free < ROOM:
        yield Finding(
            f"{size(free)} are free on the disk of {root}",
            "when it is full, logs are lost and the private Redis refuses tasks",
            f"make room; du -sh {root}/* shows what is large",
        )


def pidfiles(look: Look) -> Iterator[Finding]:
    """Pidfiles of processes that have gone."""
    run = look.state_dir.run
    for path in sorted(run.glob("*.pid")) if run.is_dir() else ():
        named = pidfile.read(path)
        if named is not None and pidfile.holder(path) is None:
            yield Finding(
                f"{path} names process {named.pid}, which is gone",
                "it was killed before it could clean up; whatever watches the file is misled",
                "opsq up starts it again and writes the file anew",
            )


def monitor(_look: Look) -> Iterator[Finding]:
    """A monitor that other machines can reach demands a password."""
    settings = _monitor_settings()
    address = str(settings.get("address") or "127.0.0.1")
    guarded = settings.get("basic_auth") or os.environ.get("OPSQ_MONITOR_BASIC_AUTH")
    if not guarded and not _is_loopback(address):
        yield Finding(
            f"the monitor is to listen at {address} without a password",
            "everybody who reaches it reads your tasks' arguments; it refuses to start",
            'set OPSQ_MONITOR_BASIC_AUTH="user:password", or basic_auth in [monitor] of opsq.toml',
        )


def _monitor_settings() -> dict[str, Any]:
    path = toml_file.find(Path.cwd())
    table = toml_file.load(path).monitor if path is not None else {}
    return {name.replace("-", "_"): value for name, value in table.items()}


def _is_loopback(address: str) -> bool:
    if address in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
