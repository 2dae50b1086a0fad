"""What the benchmarks share: a Redis of their own, processes and their CPU, messages, and how figures are shown."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis

from opsq.protocol import envelope

TASK = "bench.noop"
#: The app of both: a task that returns at once what it was given first.
SOURCE = """
import os
from {library} import {name}

app = {name}("bench", broker=os.environ["BROKER"], backend=os.environ.get("BACKEND") or None)


@app.task(name="bench.noop", ignore_result=not os.environ.get("BACKEND"))
def noop(number, payload=""):
    return number
"""


@dataclass(frozen=True)
class Server:
    """A running Redis and a client of its database 0."""

    port: int
    client: redis.Redis
    settings: str

    def url(self, db: int = 0) -> str:
        """Its URL."""
        return f"redis://127.0.0.1:{self.port}/{db}"

    def cpu_s(self) -> float:
        """CPU seconds it has used."""
        found = self.client.info("cpu")
        return float(found["used_cpu_user"] + found["used_cpu_sys"])


@contextmanager
def server(durable: bool) -> Iterator[Server]:
    """A Redis without append-only file, or with the settings of opsq's private one."""
    folder = tempfile.mkdtemp(prefix="opsq-bench-")
    with socket_port() as port:
        pass
    argv = ["redis-server", "--port", str(port), "--dir", folder, "--save", "", "--logfile", "redis.log"]
    argv += ["--appendonly", "yes", "--appendfsync", "always"] if durable else ["--appendonly", "no"]
    process = subprocess.Popen(argv)
    client = redis.Redis(port=port)
    try:
        wait_until(lambda: _answers(client))
        settings = "appendonly yes, appendfsync always" if durable else "no append-only file"
        version = client.info("server")["redis_version"]
        yield Server(port, client, f"Redis {version}, {settings}")
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


@contextmanager
def socket_port() -> Iterator[int]:
    """A TCP port that nobody uses."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def wait_until(condition: Any, timeout_s: float = 60.0, pause_s: float = 0.002) -> None:
    """Wait for a condition; raises TimeoutError."""
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {timeout_s} s")
        time.sleep(pause_s)


@contextmanager
def process(argv: Sequence[str], environment: dict[str, str], folder: Path) -> Iterator[psutil.Process]:
    """A process in a folder, ended with all its descendants."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OPSQ_", "CELERY_"))}
    with open(folder / "output", "ab") as output:
        started = subprocess.Popen(argv, env={**clean, **environment}, cwd=folder, stdout=output, stderr=output)
    found = psutil.Process(started.pid)
    try:
        yield found
    finally:
        family = found.children(recursive=True) if found.is_running() else []
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
        for each in family:
            if each.is_running():
                each.kill()


def cpu_s(root: psutil.Process) -> float:
    """CPU seconds of a process and its living descendants."""
    family = [root, *root.children(recursive=True)]
    return sum(each.cpu_times().user + each.cpu_times().system for each in family)


@contextmanager
def project(library: str) -> Iterator[Path]:
    """A folder with the app, for opsq or for Celery."""
    with tempfile.TemporaryDirectory(prefix="opsq-bench-") as name:
        folder = Path(name)
        (folder / "bench.py").write_text(SOURCE.format(library=library, name="Celery"))
        yield folder


def messages(count: int, payload_bytes: int) -> list[bytes]:
    """Calls of the task as any producer writes them."""
    payload = "x" * payload_bytes
    return [
        envelope.build(
            task=TASK, id=str(uuid.uuid4()), args=[number, payload], kwargs={}, queue="celery", origin="bench"
        )
        for number in range(count)
    ]


def fill(client: redis.Redis, raws: Sequence[bytes]) -> None:
    """Put them into the queue, in order."""
    for start in range(0, len(raws), 500):
        client.lpush("celery", *raws[start : start + 500])


def opsq_argv(*options: str) -> list[str]:
    """The installed command."""
    return [str(Path(sys.executable).with_name("opsq")), "-A", "bench", "worker", "-l", "warning", *options]


def machine() -> str:
    """What the figures were taken on."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, load {load}"


def show(title: str, rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Rows as an aligned table, or as JSON."""
    if as_json:
        print(json.dumps({"title": title, "machine": machine(), "rows": rows}, indent=1))
        return
    print(f"\n{title}  ({machine()})")
    columns = list(rows[0])
    cells = [[str(row.get(name, "")) for name in columns] for row in rows]
    widths = [max(len(name), *(len(line[place]) for line in cells)) for place, name in enumerate(columns)]
    for line in [columns, *cells]:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
