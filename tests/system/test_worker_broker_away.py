"""A broker that is away when a worker starts: an error for who typed the command, waited for under a supervisor."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support import redis_server, worker_project
from support.processes import Spawner
from support.worker_project import Project


@pytest.fixture
def nowhere(tmp_path: Path, spawn: Spawner, free_port) -> Project:
    """A project whose broker does not run yet."""
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(worker_project.write(folder), spawn, f"redis://127.0.0.1:{free_port()}/0")


def test_whoever_typed_the_command_is_told(nowhere: Project) -> None:
    argv = [sys.executable, "-m", "opsq", "-A", "proj", "worker"]
    worker = nowhere.spawn(argv, env=nowhere.environment, cwd=nowhere.folder)
    assert worker.wait() == 3
    assert worker.output().splitlines()[0].endswith("connection refused")
    assert "Traceback" not in worker.output()


@pytest.mark.parametrize("wish", ["NOTIFY_SOCKET=/nowhere", "CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP=1"])
def test_under_a_supervisor_or_if_it_is_set_it_is_waited_for(nowhere: Project, wait_for, wish: str) -> None:
    worker = nowhere.worker("-c", "1", ready=False, **dict([wish.split("=")]))
    wait_for(lambda: "waiting for it" in worker.output())
    port = int(nowhere.url.rpartition(":")[2].partition("/")[0])
    with redis_server.running(port=port):
        wait_for(lambda: " ready." in worker.output())
        assert worker.stop() == 0


def test_a_result_server_that_is_not_there_yet_is_waited_for_too(nowhere: Project, wait_for, free_port) -> None:
    results = free_port()
    with redis_server.running(port=int(nowhere.url.rpartition(":")[2].partition("/")[0])):
        elsewhere = {"OPSQ_RESULT_BACKEND": f"redis://127.0.0.1:{results}/0", "NOTIFY_SOCKET": "/nowhere"}
        worker = nowhere.worker("-c", "1", ready=False, **elsewhere)
        wait_for(lambda: "waiting for it" in worker.output())
        with redis_server.running(port=results):
            wait_for(lambda: " ready." in worker.output())
            assert worker.stop() == 0
