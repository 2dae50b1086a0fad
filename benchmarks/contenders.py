"""Who is measured: the installed `opsq worker`, Celery's worker, and a bare loop of the same scripts.

Each is started with a task to do, waited for until that is done, and ended, in the same way for all.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.messages import LIST, messages
from benchmarks.servers import Server

PROJECT = Path(__file__).with_name("project")
ROOT = Path(__file__).parents[1]
READY_S = 30.0


@dataclass(frozen=True)
class Contender:
    """Somebody who runs tasks: a name, and the interpreter of its environment."""

    name: str
    library: str
    python: Path

    def environment(self, broker: str, backend: str | None) -> dict[str, str]:
        """The variables of a process of it that works on the benchmark's tasks."""
        foreign = ("OPSQ_", "CELERY_", "PYTHONDONTWRITEBYTECODE")  # what is installed has been compiled
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        told = {"BENCH_LIBRARY": self.library, "BENCH_BROKER": broker, "PYTHONPATH": str(PROJECT)}
        return {**kept, **told, **({"BENCH_BACKEND": backend} if backend else {})}

    def command(self, server: Server, backend: str | None, children: int) -> list[str]:
        """The command line of its worker."""
        if self.library == "bare":
            return [str(self.python), "-m", "benchmarks.bare_loop", server.url, *([backend] if backend else [])]
        pool = ["-P", "solo"] if self.name.endswith("solo") else ["-c", str(children)]
        program = str(self.python.with_name(self.library))
        return [program, "-A", "bench_tasks", "worker", "-l", "warning", *pool]

    def is_done(self, server: Server) -> bool:
        """Whether nothing waits, nothing is unfinished, and it waits for more (Celery: in BRPOP)."""
        pipe = server.client.pipeline()
        pipe.llen(LIST)
        for store in self.stores(server):
            pipe.hlen(store)
        left = sum(pipe.execute())
        return not left and (self.library != "celery" or int(server.info("clients")["blocked_clients"]) > 0)

    def stores(self, server: Server) -> list[str]:
        """The hashes with the messages that it has taken and not finished."""
        if self.library == "celery":
            return ["unacked"]
        consumers: Any = server.client.zrange("opsq:consumers:{celery}", 0, -1)
        return [f"opsq:inflight:{{celery}}:{name.decode()}" for name in consumers]


def contenders(celery: Path | None) -> list[Contender]:
    """opsq and the bare loop; Celery too, if the interpreter of an environment with it is known."""
    ours = Path(sys.executable)
    found = [Contender("opsq", "opsq", ours), Contender("bare loop", "bare", ours)]
    if celery is not None:
        found += [Contender("Celery prefork", "celery", celery), Contender("Celery solo", "celery", celery)]
    return found


@contextmanager
def at_work(who: Contender, server: Server, backend: str | None = None, children: int = 1) -> Iterator[int]:
    """Its worker, after a first task and waiting for more; the value is its process id."""
    folder = tempfile.mkdtemp(prefix="opsq-bench-worker-")
    environment = who.environment(server.url, backend)
    if who.library == "bare":
        environment["PYTHONPATH"] = str(ROOT)
    elif who.library == "opsq":
        environment["OPSQ_STATE_DIR"] = folder
    server.client.lpush(LIST, *messages(1, 1))
    process = start(who.command(server, backend, children), environment, folder)
    try:
        wait_for(lambda: who.is_done(server), f"{who.name} does not work", process)
        yield process.pid
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def start(command: list[str], environment: Mapping[str, str], folder: str) -> subprocess.Popen[bytes]:
    """A worker; what it says goes to a file in its folder."""
    with (Path(folder) / "output").open("wb") as output:
        return subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )


def wait_for(condition: Callable[[], bool], trouble: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Until the condition holds; leaves the benchmark when the process ends first, or when it takes too long."""
    until = time.monotonic() + READY_S
    while not condition():
        if time.monotonic() > until or (process is not None and process.poll() is not None):
            raise SystemExit(trouble)
        time.sleep(0.01)


def end(process: subprocess.Popen[bytes]) -> None:
    """A warm stop; whoever does not end is killed with all its children."""
    process.terminate()
    try:
        process.wait(READY_S)
    except subprocess.TimeoutExpired:
        for pid in processes.tree(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
