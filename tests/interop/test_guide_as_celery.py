"""What Celery's guide shows of tasks, calls, workflows and results comes to the same with either library.

Client and worker are of one library here; clients and workers of both together are in the other tests of this folder.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import guide_project, key_audit, redis_server
from support.client_peer import Client
from support.processes import Spawner

CELERYS_KEYS = (r"_kombu\.binding.*", "unacked.*", r".*\.reply\.celery\.pidbox")
LIBRARIES = ("celery", "opsq")


@pytest.fixture(scope="module")
def clients(celery_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Client]]:
    """Celery's client and opsq's, each with a worker of its own library and databases of its own."""
    folder = tmp_path_factory.mktemp("guide")
    pythons = {"celery": celery_python, "opsq": Path(sys.executable)}
    spawner = Spawner(folder)
    made: list[Client] = []
    with redis_server.running() as server:
        try:
            running = []
            for number, library in enumerate(LIBRARIES):
                place = guide_project.write(folder / library, library)
                environment = {"PROJ_BROKER": server.url(2 * number), "PROJ_BACKEND": server.url(2 * number + 1)}
                argv = [pythons[library], "-m", library, "-A", "flows", "worker", "-c", "2", "-n", f"{library}@%h"]
                running.append(spawner([*argv, "-l", "info"], name=f"{library}-worker", env=environment, cwd=place))
                made.append(Client(pythons[library], place, spawner.environment(environment)))
            until = time.monotonic() + 60
            for worker in running:
                while " ready." not in worker.output():
                    assert worker.alive(), worker.report()
                    assert time.monotonic() < until, worker.report()
                    time.sleep(0.01)
            yield made[0], made[1]
        finally:
            for client in made:
                client.close()
            spawner.end_all()
        assert not (problems := key_audit.of_server(server, CELERYS_KEYS)), problems


@pytest.mark.parametrize("item", guide_project.AS_DATA)
def test_signatures_and_calls_without_a_worker_are_celerys(clients: tuple[Client, Client], item: str) -> None:
    celery, opsq = clients
    assert opsq.flow(item) == celery.flow(item)


@pytest.mark.parametrize("item", guide_project.RUN)
def test_tasks_and_workflows_come_to_what_they_do_in_celery(clients: tuple[Client, Client], item: str) -> None:
    celery, opsq = clients
    assert opsq.flow(item) == celery.flow(item)


@pytest.mark.parametrize("item", guide_project.TOLD)
def test_handlers_and_errbacks_are_told_what_they_are_in_celery(
    clients: tuple[Client, Client], item: str, tmp_path: Path
) -> None:
    celery, opsq = clients
    assert opsq.flow(item, str(tmp_path / "opsq")) == celery.flow(item, str(tmp_path / "celery"))
