"""The private Redis: which server is used, its configuration, and the program that it is.

For one machine and one user. What was acknowledged survives kill -9 of the server: each write is synced first.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opsq.exceptions import ImproperlyConfigured
from opsq.runtime import pidfile
from opsq.runtime.process import identify
from opsq.runtime.redis_server import find_server
from opsq.runtime.statedir import StateDir
from opsq.supervisor.plan import Answer, Program

NAME = "redis"
_SYNC = ("always", "everysec", "no")


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
