"""Celery's signed messages (the serializer `auth`): each side signs with a key of its own, and checks the other's."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import certificates, lent, project, redis_server
from support.client_peer import Client
from support.processes import Running, Spawner
from support.redis_server import RedisServer

SECURITY = """
app.conf.update(
    task_serializer="auth",
    result_serializer="auth",
    event_serializer="auth",
    accept_content=["auth"],
    security_key="{folder}/{library}-key.pem",
    security_certificate="{folder}/{library}-certificate.pem",
    security_cert_store="{folder}/*-certificate.pem",
    security_digest="sha512",
)
app.setup_security()
"""


@dataclass
class World:
    """A worker and a client of either kind; the workers' queues have their names."""

    server: RedisServer
    workers: dict[str, Running]
    clients: dict[str, Client]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, celery_python: Path) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("signed")
    for library in ("celery", "opsq"):
        certificates.self_signed(folder, library)
    spawner, clients, workers = Spawner(folder), {}, {}
    with redis_server.running() as server:
        places = {"PROJ_BROKER": server.url(), "PROJ_BACKEND": server.url(1)}
        for library, python in (("celery", celery_python), ("opsq", Path(sys.executable))):
            home = project.write(folder / library, library)
            with (home / "proj.py").open("a") as file:
                file.write(SECURITY.format(folder=folder, library=library))
            if library == "celery":
                lent.lend(home, lent.CRYPTOGRAPHY)
            environment = spawner.environment({**places, "PYTHONPATH": str(home)})
            argv = [python, "-m", library, "-A", "proj", "worker", "-Q", library, "-c", "1", "-n", f"{library}@here"]
            workers[library] = spawner([*argv, "-l", "info"], name=library, env=environment, cwd=home)
            clients[library] = Client(python, home, environment)
        try:
            end = time.monotonic() + 60
            while not all(" ready." in worker.output() for worker in workers.values()):
                assert time.monotonic() < end, spawner.report()
                time.sleep(0.02)
            yield World(server, workers, clients)
        finally:
            spawner.end_all()
            for client in clients.values():
                client.close()


@pytest.mark.parametrize("worker", ["celery", "opsq"])
@pytest.mark.parametrize("sender", ["celery", "opsq"])
def test_what_one_side_signs_the_other_runs_and_its_result_is_signed(world: World, sender: str, worker: str) -> None:
    client = world.clients[sender]
    task_id = client.send("echo", "ä", 1, _kwargs={"a": None}, queue=worker)
    assert client.get(task_id) == [["ä", 1], {"a": None}]
    with pytest.raises(Exception, match="ValueError"):
        client.get(client.send("fail", "told", queue=worker))
    assert client.get(client.send("flaky", 1, queue=worker)) == 1
    with world.server.client(1) as results:
        stored: Any = results.get(f"celery-task-meta-{task_id}")
    assert base64.b64decode(stored).count(b"\x00\x01") >= 4


@pytest.mark.parametrize("sender", ["celery", "opsq"])
def test_signed_commands_are_heard_by_both(world: World, sender: str) -> None:
    replies = world.clients[sender].broadcast("ping", timeout=10, limit=2)
    assert {node for each in replies for node in each} == {"celery@here", "opsq@here"}


def message_of(world: World) -> dict[str, Any]:
    """A signed message of Celery's client that nobody has taken."""
    world.clients["celery"].send("add", 2, 2, queue="nobody")
    with world.server.client() as broker:
        raw: Any = broker.rpop("nobody")
    found: dict[str, Any] = json.loads(raw)
    return found


def refused(world: World, message: dict[str, Any], wait_for: Any) -> str:
    """Why our worker has buried a message."""
    with world.server.client() as broker:
        broker.lpush("opsq", json.dumps(message))
        wait_for(lambda: broker.hexists("opsq:dead:{opsq}", message["headers"]["id"]), what="it is a dead letter")
        letter: Any = broker.hget("opsq:dead:{opsq}", message["headers"]["id"])
    return str(json.loads(letter)["reason"])


def test_what_was_altered_or_is_not_signed_is_a_dead_letter(world: World, wait_for: Any) -> None:
    message = message_of(world)
    words = base64.b64decode(base64.b64decode(message["body"])).split(b"\x00\x01", 4)
    words[4] = words[4].replace(b"2", b"3")
    altered = base64.b64encode(base64.b64encode(b"\x00\x01".join(words))).decode()
    assert "its signature is wrong" in refused(world, {**message, "body": altered}, wait_for)

    message = message_of(world)
    words = base64.b64decode(base64.b64decode(message["body"])).split(b"\x00\x01", 4)
    words[2] = b"application/x-python-serialize"  # the type of what is signed is not signed itself
    other_type = base64.b64encode(base64.b64encode(b"\x00\x01".join(words))).decode()
    assert "refusing content of type application/x-python-serialize" in refused(
        world, {**message, "body": other_type}, wait_for
    )

    message = message_of(world)
    plain = base64.b64encode(b"[[2, 2], {}, {}]").decode()
    unsigned = {**message, "body": plain, "content-type": "application/json"}
    assert "refusing content of type application/json" in refused(world, unsigned, wait_for)
