"""A Celery worker and one of opsq beside each other on one Redis, and a client of either kind."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import project, redis_server
from support.client_peer import Client
from support.processes import Running, Spawner
from support.redis_server import RedisServer

NODES = {"celery": "c@here", "opsq": "o@here"}
TASKS = """

@app.task
def nap(seconds):
    time.sleep(seconds)


@app.task(rate_limit="100/s")
def limited():
    pass


app.conf.worker_prefetch_multiplier = 4
"""


@dataclass
class World:
    """A Celery worker and one of opsq on one Redis, each with a queue of its own, and a client of either kind."""

    server: RedisServer
    spawn: Spawner
    workers: dict[str, Running]
    clients: dict[str, Client]
    celery_python: Path

    def ask(self, method: str, sender: str = "celery", **arguments: Any) -> dict[str, Any]:
        """What both workers reply."""
        replies = self.clients[sender].broadcast(method, limit=2, timeout=10, **arguments)
        found = {node: reply for each in replies for node, reply in each.items()}
        return {library: found[node] for library, node in NODES.items()}

    def ask_one(self, node: str, method: str, **arguments: Any) -> Any:
        """What one worker replies."""
        client = self.clients["celery"]
        [reply] = client.broadcast(method, destination=[node], limit=1, timeout=10, **arguments)
        return reply[node]

    def until(self, look: Callable[[], Any], what: str, timeout: float = 20) -> Any:
        end = time.monotonic() + timeout
        while not (found := look()):
            assert time.monotonic() < end, f"{what}\n{self.spawn.report()}"
            time.sleep(0.02)
        return found


@contextmanager
def opened(folder: Path, celery_python: Path) -> Iterator[World]:
    """Both are ready; all end with it."""
    pythons = {"celery": celery_python, "opsq": Path(sys.executable)}
    folders = {each: project.write(folder / each, each) for each in pythons}
    spawner = Spawner(folder)
    with redis_server.running() as server:
        environment = {"PROJ_BROKER": server.url(0), "PROJ_BACKEND": server.url(1)}
        workers, clients = {}, {}
        for library, python in pythons.items():
            with (folders[library] / "proj.py").open("a") as file:
                file.write(TASKS)
            options = ["-l", "info", "-c", "1", "-Q", f"{library}q", "-n", NODES[library]]
            argv = [python, "-m", library, "-A", "proj", "worker", *options]
            workers[library] = spawner(argv, name=library, env=environment, cwd=folders[library])
            clients[library] = Client(python, folders[library], spawner.environment(environment))
        made = World(server, spawner, workers, clients, celery_python)
        for library, worker in workers.items():
            made.until(lambda worker=worker: " ready." in worker.output(), f"the {library} worker is ready")
        yield made
        for client in clients.values():
            client.close()
        spawner.end_all()
