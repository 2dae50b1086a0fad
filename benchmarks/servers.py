"""Private Redis servers of the benchmarks: one that keeps nothing on disk, one as `opsq up` brings it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from opsq.datastore.connection import client
from opsq.datastore.trouble import RedisError
from opsq.runtime.statedir import StateDir
from opsq.supervisor.private_redis import configuration, find_server

#: What each kind of server is, in words for the output.
KINDS = {
    "plain": "TCP on the loopback interface, nothing on disk",
    "private": "Unix socket, appendonly yes, appendfsync always: as `opsq up` starts it",
}
START_S = 20.0


@dataclass(frozen=True)
class Server:
    """A server that runs, and how it is reached."""

    kind: str
    url: str
    pid: int
    version: str

    def database(self, number: int) -> str:
        """The URL of another database of it."""
        if self.kind == "private":
            return f"{self.url}?virtual_host={number}"
        return f"{self.url.rpartition('/')[0]}/{number}"

    @property
    def client(self) -> redis.Redis:
        """A client for its first database."""
        return client(self.url)

    def info(self, section: str) -> dict[str, Any]:
        """What it says of itself."""
        found: Any = self.client.info(section)
        return dict(found)

    def cpu_s(self) -> float:
        """Seconds of CPU that it has used."""
        used = self.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    def calls(self) -> dict[str, int]:
        """How often each command was called."""
        found = self.info("commandstats")
        return {name.removeprefix("cmdstat_"): int(stats["calls"]) for name, stats in found.items()}


@contextmanager
def running(kind: str) -> Iterator[Server]:
    """A server of a kind; it and its files go with the block."""
    folder = Path(tempfile.mkdtemp(prefix="opsq-bench-"))
    arguments, url = _plain(folder) if kind == "plain" else _private(folder)
    process = subprocess.Popen([find_server(), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield Server(kind, url, process.pid, _version_when_up(process, url))
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _plain(folder: Path) -> tuple[list[str], str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no"]
    return arguments, f"redis://127.0.0.1:{port}/0"


def _private(folder: Path) -> tuple[list[str], str]:
    state = StateDir(folder)
    state.create()
    state.redis.mkdir(mode=0o700, exist_ok=True)
    path = folder / "redis.conf"
    path.write_text(configuration(state, {}))
    return [str(path)], f"redis+socket://{state.redis_socket}"


def _version_when_up(process: subprocess.Popen[bytes], url: str) -> str:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            found: Any = client(url).info("server")
            return str(found["redis_version"])
        except (RedisError, OSError):
            time.sleep(0.01)
    raise SystemExit("Redis does not start")
