"""A worker whose broker fails over: Sentinels promote the replica, or an operator does."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import key_audit, replicated, worker_project
from support.processes import Spawner
from support.redis_server import RedisServer
from support.replicated import MASTER
from support.worker_project import Project

from opsq import App

OPTIONS = f"""
app.conf.broker_transport_options = {{"master_name": "{MASTER}"}}
app.conf.result_backend_transport_options = {{"master_name": "{MASTER}"}}
app.conf.result_backend = os.environ["OPSQ_BROKER_URL"]
"""


@pytest.fixture
def make_project(tmp_path: Path, spawn: Spawner) -> Callable[..., Project]:
    """A project at a broker, with some lines more."""

    def make(url: str, lines: str = "") -> Project:
        folder = tmp_path / "project"
        folder.mkdir()
        project = Project(worker_project.write(folder), spawn, url)
        with (folder / "proj.py").open("a") as file:
            file.write(lines)
        return project

    return make


def send(url: str, task: str, count: int, first: int = 0, seconds: float = 0.02) -> list[Any]:
    app = App("client", broker=url, backend=url, set_as_current=False)
    patient = {"max_retries": 100, "interval_step": 0.05, "interval_max": 0.2}
    return [
        app.send_task(f"proj.{task}", (number, seconds), retry_policy=patient) for number in range(first, first + count)
    ]


def finish(project: Project, server: RedisServer, expected: int, wait_for: Callable[..., Any]) -> None:
    """All had their effect, nothing is left, in no key that nobody knows."""
    with server.client() as client:
        wait_for(lambda: worker_project.all_done(client), 60, "everything is done")
        assert set(project.effects()) == {str(number) for number in range(expected)}
        assert not client.exists("opsq:dead:{celery}")
    for running in project.spawn.running:
        assert running.stop() == 0, running.report()
    assert not (problems := key_audit.of_server(server)), problems


@pytest.mark.parametrize("strike", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "only silent"])
def test_a_worker_follows_the_sentinels_and_loses_nothing_that_was_replicated(
    strike: signal.Signals, make_project: Callable[..., Project], tmp_path: Path, wait_for: Callable[..., Any]
) -> None:
    with replicated.watched(tmp_path) as watched:
        project = make_project(watched.url(), OPTIONS)
        running = project.worker("-c", "2")
        send(watched.full_url(), "late", 150)
        with watched.master.client() as client:
            assert client.wait(1, 5000) == 1, "all messages are replicated"
        wait_for(project.running_now, what="a task runs")
        watched.master.process.send_signal(strike)
        results = send(watched.full_url(), "late", 10, first=150)
        assert results[-1].get(timeout=60) is None
        assert running.alive()
        finish(project, watched.replica, 160, wait_for)
        watched.master.process.kill()


def test_a_worker_leaves_a_server_that_became_a_replica_for_the_next_of_its_list(
    make_project: Callable[..., Project], wait_for: Callable[..., Any]
) -> None:
    with replicated.pair() as (old, new):
        url = f"redis://127.0.0.1:{old.port};redis://127.0.0.1:{new.port}"
        project = make_project(url)
        project.worker("-c", "2")
        send(url, "late", 60)
        wait_for(project.running_now, what="a task runs")
        with old.client() as client, new.client() as other:
            client.execute_command("CLIENT", "PAUSE", 10_000, "WRITE")
            replicated.until(lambda: _offset(other) == _offset(client), "the replica has everything")
            other.replicaof("NO", "ONE")
            replicated.follow(old, new)
            client.execute_command("CLIENT", "UNPAUSE")
        send(url, "late", 10, first=60)
        finish(project, new, 70, wait_for)


def _offset(client: Any) -> int:
    found = client.info("replication")
    return int(found["master_repl_offset"])
