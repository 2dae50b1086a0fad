"""A Redis of this process alone, for tests: nothing on disk, and it ends with the process, however that ends."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from opsq.exceptions import OpsqError
from opsq.runtime.redis_server import find_server

#: How long it may take to start (seconds).
PATIENCE_S = 10.0
#: A shell keeps the server until the pipe to it is closed: by the end of this process, or by the kernel.
_KEEPER = 'trap "" INT; "$@" >/dev/null 2>&1 & read _; kill $!; wait; rm -rf "$FOLDER"'


@cache
def url() -> str:
    """Its URL; started when it is first asked for. Raises OpsqError when no server is installed."""
    if not hasattr(socket, "AF_UNIX"):
        hint = "set broker_url to a Redis that runs"
        raise OpsqError("cannot start a Redis for memory://", why="this system has no Unix sockets", hint=hint)
    folder = Path(tempfile.mkdtemp(prefix="opsq-memory-"))
    path = folder / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(path), "--dir", str(folder), "--save", "", "--appendonly", "no"]
    argv = ["sh", "-c", _KEEPER, "opsq-memory", str(find_server()), *options, "--maxmemory-policy", "noeviction"]
    keeper = subprocess.Popen(argv, stdin=subprocess.PIPE, env={**os.environ, "FOLDER": str(folder)})
    atexit.register(_end, os.getpid(), keeper, folder)
    until = time.monotonic() + PATIENCE_S
    while not _answers(path):
        if time.monotonic() > until or keeper.poll() is not None:
            raise OpsqError("cannot start a Redis for memory://", why="it does not answer", hint="opsq doctor")
        time.sleep(0.005)
    return f"redis+socket://{path}"


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _end(owner: int, keeper: subprocess.Popen[bytes], folder: Path) -> None:
    if os.getpid() != owner:  # a fork of the process that started it
        return
    keeper.communicate()
    shutil.rmtree(folder, ignore_errors=True)
