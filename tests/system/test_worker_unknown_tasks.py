"""A task that a worker does not know, and somebody else on the queue does: no dead letter while code is replaced."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from support.lab import OPSQ
from support.processes import Running
from support.worker_project import Project, all_done

from opsq import App

CODE = """
import os
import time

from opsq import Celery

app = Celery("proj")
{more}

@app.task
def old():
    return "old"
"""
FRESH = """

@app.task
def fresh(number):
    return number
"""
#: The import of a newcomer takes until the test says so.
SLOW = """
if os.environ.get("OPSQ_TEMPLATE_LINK") or os.path.exists("{gate}.on"):
    while not os.path.exists("{gate}"):
        time.sleep(0.01)
"""


@pytest.fixture
def app(redis_url: str) -> App:
    return App("client", broker=redis_url, backend=redis_url, set_as_current=False)


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


@pytest.fixture
def project(project: Project) -> Project:
    write(project.folder)
    return project


@pytest.fixture
def gate(project: Project) -> Path:
    """Code that is written with it is imported when this file is there."""
    return project.folder / "gate"


def write(folder: Path, more: str = "", gate: Path | None = None) -> None:
    """The project's module; moved there, so that nobody reads half of it."""
    slow = ""
    if gate is not None:
        slow = SLOW.format(gate=gate)
        gate.with_suffix(".on").touch()
    (folder / "proj.new").write_text(CODE.format(more=slow + more))
    (folder / "proj.new").replace(folder / "proj.py")


def dead(client: redis.Redis) -> list[str]:
    """The reasons of the dead letters."""
    found: Any = client.hvals("opsq:dead:{celery}")
    return [json.loads(letter)["reason"] for letter in found]


def put_off(worker: Running) -> bool:
    """Whether a message has been put off because its task is not known."""
    return "is not known here" in worker.output()


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_new_task_that_comes_while_code_is_reloaded_runs(
    project: Project, app: App, client: redis.Redis, gate: Path, wait_for: Callable[..., Any], pool: str
) -> None:
    """It is taken by children of the old code as long as the new one is being imported."""
    worker = project.worker("-c", "2", "-P", pool)
    write(project.folder, FRESH, gate)
    worker.send(signal.SIGHUP)
    wait_for(lambda: "reloading" in worker.output(), what="the reload has begun")
    results = [app.send_task("proj.fresh", (number,)) for number in range(5)]
    wait_for(lambda: put_off(worker), what="the old children have met them")
    gate.touch()
    assert [result.get(timeout=20) for result in results] == list(range(5))
    assert not dead(client)
    assert worker.stop() == 0


def test_what_nobody_knows_after_the_reload_is_a_dead_letter(
    project: Project, app: App, client: redis.Redis, gate: Path, wait_for: Callable[..., Any]
) -> None:
    """Also after a reload that has failed."""
    worker = project.worker("-c", "1")
    write(project.folder, "raise RuntimeError('broken')", gate)
    worker.send(signal.SIGHUP)
    wait_for(lambda: "reloading" in worker.output(), what="the reload has begun")
    app.send_task("proj.fresh", (1,))
    wait_for(lambda: put_off(worker), what="it is put off")
    assert not dead(client)
    gate.touch()
    wait_for(lambda: "cannot reload" in worker.output(), what="the reload has failed")
    wait_for(lambda: dead(client) == ["unknown task 'proj.fresh'"], what="a dead letter")
    assert worker.stop() == 0


def test_a_worker_of_older_code_leaves_new_tasks_to_those_who_know_them(
    project: Project, app: App, client: redis.Redis, wait_for: Callable[..., Any]
) -> None:
    """Several workers on one queue, of which one has been deployed; when it has gone, nobody waits for it."""
    older = project.worker("-c", "1", name="older")
    newer = newer_worker(project)
    results = [app.send_task("proj.fresh", (number,)) for number in range(10)]
    wait_for(lambda: all(result.ready() for result in results), timeout=20, what="all have run")
    assert [result.get() for result in results] == list(range(10))
    assert not dead(client)
    assert newer.stop() == 0
    lost = app.send_task("proj.fresh", (10,))
    wait_for(lambda: dead(client) == ["unknown task 'proj.fresh'"], what="a dead letter")
    newer = newer_worker(project)
    requeue = [*OPSQ, "-b", project.url, "dead", "requeue", "--all"]
    told = subprocess.run(requeue, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    wait_for(lambda: app.AsyncResult(lost.id).state == "SUCCESS", timeout=20, what="it runs after all")
    assert not dead(client)
    assert all_done(client)
    assert newer.stop() == older.stop() == 0


def newer_worker(project: Project) -> Running:
    """A worker with a newer state of the code, on the same queue."""
    folder = project.folder.parent / "newer"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write(folder, FRESH)
    deployed = Project(folder, project.spawn, project.url)
    return deployed.worker("-c", "1", name="newer", OPSQ_STATE_DIR=str(folder / "state"))
