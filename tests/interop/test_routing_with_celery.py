"""Exchanges and broadcasts between Celery and opsq: a worker of each kind, and clients of both, over one Redis.

With the newest Celery, and with the older ones that OPSQ_TEST_CELERY names: their kombu binds differently.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import celery_venv, key_audit, redis_server
from support.client_peer import Client
from support.kombu_peer import Kombu
from support.processes import Spawner

from opsq.protocol.routing import topic_pattern

PROJECT = """
import os

from LIBRARY import Celery
IMPORT_QUEUES

app = Celery("proj", broker=os.environ["PROJ_BROKER"], backend=os.environ["PROJ_BACKEND"])
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1)
logs, orders = Exchange("logs", type="topic"), Exchange("orders")
if os.environ.get("DECLARES"):
    app.conf.task_queues = [
        Queue("LIBRARY.web", logs, routing_key="web.#"),
        Queue("LIBRARY.errors", logs, routing_key="*.error"),
        Queue("LIBRARY.new", orders, routing_key="new"),
        Queue("proj#workerQueue@LIBRARY", orders, routing_key="new"),
        Broadcast("news"),
    ]


@app.task(bind=True)
def hear(self, path, text):
    with open(path, "a") as file:
        file.write(f"LIBRARY {text}\\n")
"""
FLOWS = """
from kombu import Exchange
from proj import hear


def tell(*args):
    hear.apply_async(args, queue="news", declare=[Exchange("news", type="fanout")])
"""
IMPORTS = {
    "celery": "from kombu import Exchange, Queue\nfrom kombu.common import Broadcast",
    "opsq": "from opsq import Broadcast, Exchange, Queue",
}


@dataclass
class Fleet:
    """A worker of each kind; of each kind a client that declares the same queues, and one that declares none.

    `fresh`: a client of Celery that has sent nothing yet.
    """

    clients: dict[str, Client]
    strangers: dict[str, Client]
    folder: Path
    fresh: Callable[[], Client]

    def heard(self, text: str, lines: list[str], timeout: float = 20) -> None:
        """Wait until just these have written it down."""
        path, until = self.folder / text, time.monotonic() + timeout
        while True:
            found = sorted(path.read_text().splitlines()) if path.exists() else []
            if found == lines:
                return
            assert time.monotonic() < until, (text, found, lines)
            time.sleep(0.01)


@pytest.fixture(scope="module", params=[celery_venv.NEWEST, *celery_venv.older()])
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    celery_python = celery_venv.python(request.param)
    pythons = {"celery": celery_python, "opsq": Path(sys.executable)}
    folder = tmp_path_factory.mktemp("routing")
    spawner = Spawner(folder)
    with redis_server.running() as server:
        environment = {"PROJ_BROKER": server.url(0), "PROJ_BACKEND": server.url(1), "C_FORCE_ROOT": "1"}
        clients, strangers = {}, {}
        for library, python in pythons.items():
            home = folder / library
            home.mkdir()
            text = PROJECT.replace("LIBRARY", library).replace("IMPORT_QUEUES", IMPORTS[library])
            (home / "proj.py").write_text(text)
            (home / "flows.py").write_text(FLOWS)
            worker = spawner(
                [python, "-m", library, "-A", "proj", "worker", "-l", "info", "-c", "1", "-n", f"{library}@h"],
                name=library,
                env={**environment, "DECLARES": "1"},
                cwd=home,
            )
            until = time.monotonic() + 30
            while " ready." not in worker.output():
                assert worker.alive(), worker.report()
                assert time.monotonic() < until, worker.report()
                time.sleep(0.01)
            strangers[library] = Client(python, home, spawner.environment(environment))
            clients[library] = Client(python, home, spawner.environment({**environment, "DECLARES": "1"}))
        (folder / "heard").mkdir()
        declares = spawner.environment({**environment, "DECLARES": "1"})
        yield Fleet(clients, strangers, folder / "heard", lambda: Client(celery_python, folder / "celery", declares))
        for client in (*clients.values(), *strangers.values()):
            client.close()
        spawner.end_all()
        foreign = (r"_kombu\.binding.*", "unacked.*", r".*\.reply\.celery\.pidbox")
        assert not (problems := key_audit.of_server(server, foreign)), problems


@pytest.fixture(params=["celery", "opsq"])
def library(request: pytest.FixtureRequest) -> str:
    """Whose client sends."""
    kind: str = request.param
    return kind


Send = Callable[..., None]


@pytest.fixture
def send(fleet: Fleet, library: str) -> Send:
    def send(text: str, declared: bool = True, **options: object) -> None:
        client = (fleet.clients if declared else fleet.strangers)[library]
        client.send("hear", str(fleet.folder / text), text, **options)

    return send


def test_a_topic_reaches_the_queues_of_both(fleet: Fleet, send: Send, library: str) -> None:
    send(f"topic-{library}", queue=f"{library}.web", routing_key="web.error")
    fleet.heard(f"topic-{library}", [f"celery topic-{library}"] * 2 + [f"opsq topic-{library}"] * 2)
    send(f"words-{library}", queue=f"{library}.errors", routing_key="web.a.b")
    fleet.heard(f"words-{library}", [f"celery words-{library}", f"opsq words-{library}"])


def test_a_direct_exchange_reaches_every_queue_that_is_bound(fleet: Fleet, send: Send, library: str) -> None:
    send(f"direct-{library}", exchange="orders", routing_key="new")
    fleet.heard(f"direct-{library}", [f"celery direct-{library}"] * 2 + [f"opsq direct-{library}"] * 2)


def test_who_declares_nothing_reaches_them_too(fleet: Fleet) -> None:
    path = str(fleet.folder / "stranger")
    fleet.strangers["opsq"].send("hear", path, "stranger", exchange="logs", routing_key="db.error")
    fleet.heard("stranger", ["celery stranger", "opsq stranger"])


def test_a_queue_with_odd_characters_is_reached_by_its_name(fleet: Fleet, send: Send, library: str) -> None:
    for worker in ("celery", "opsq"):
        text = f"odd-{library}-{worker}"
        send(text, queue=f"proj#workerQueue@{worker}", declared=False)
        fleet.heard(text, [f"{worker} {text}"])


def test_a_broadcast_of_opsq_reaches_workers_of_both_kinds(fleet: Fleet) -> None:
    fleet.clients["opsq"].send("hear", str(fleet.folder / "ours"), "ours", queue="news")
    fleet.heard("ours", ["celery ours", "opsq ours"])


def test_a_broadcast_of_celery_reaches_workers_of_both_kinds_if_it_says_the_type(fleet: Fleet) -> None:
    fleet.clients["celery"].flow("tell", str(fleet.folder / "theirs"), "theirs")
    fleet.heard("theirs", ["celery theirs", "opsq theirs"])


def test_a_broadcast_that_celery_takes_for_a_direct_exchange_reaches_opsqs_workers_alone(fleet: Fleet) -> None:
    """Celery's client declares no broadcast, and so pushes it into a list that Celery's workers never read."""
    client = fleet.fresh()
    client.send("hear", str(fleet.folder / "taken"), "taken", queue="news")
    client.close()
    fleet.heard("taken", ["opsq taken"])


def test_a_broadcast_is_reached_by_its_exchange_alone(fleet: Fleet) -> None:
    path = str(fleet.folder / "exchange")
    fleet.strangers["opsq"].send("hear", path, "exchange", exchange="news")
    fleet.heard("exchange", ["celery exchange", "opsq exchange"])


@pytest.mark.parametrize("key", ["a.b", "a.*", "#", "logs.#.x", "a-b.c d", "ü#.*x", "(x)[y]", "a\\b", ""])
def test_patterns_are_written_as_kombu_writes_them(kombu: Kombu, key: str) -> None:
    assert kombu.topic_pattern(key) == topic_pattern(key)
