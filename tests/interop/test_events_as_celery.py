"""Celery's `events` and Flower show opsq's worker and its tasks as they show Celery's; `opsq events` shows Celery's."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import project, redis_server
from support.client_peer import Client
from support.processes import Running, Spawner

WORKER = ["-A", "proj", "worker", "-l", "info", "-c", "2", "-n", "w@%h"]


@dataclass
class World:
    """A worker of one of the two, and a client of its own kind."""

    library: str
    python: Path
    celery_python: Path
    folder: Path
    environment: dict[str, str]
    spawn: Spawner
    client: Client
    wait: Callable[..., Any]

    def celery(self, *words: str, name: str) -> Running:
        """A program of the real Celery."""
        argv = [self.celery_python, "-W", "ignore", "-m", "celery", "-A", "proj", *words]
        return self.spawn(argv, name=name, env=self.environment, cwd=self.folder.parent / "celery")

    def opsq(self, *words: str, name: str) -> Running:
        """One of ours."""
        argv = [sys.executable, "-m", "opsq", "-A", "proj", *words]
        return self.spawn(argv, name=name, env=self.environment, cwd=self.folder.parent / "opsq")


@pytest.fixture(scope="module", params=["opsq", "celery"])
def world(
    request: pytest.FixtureRequest, celery_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    library = request.param
    pythons = {"celery": celery_python, "opsq": Path(sys.executable)}
    folder = tmp_path_factory.mktemp("events")
    folders = {each: project.write(folder / each, each) for each in pythons}
    spawner = Spawner(folder)

    def wait(condition: Callable[[], Any], what: str, timeout: float = 30) -> Any:
        import time

        until = time.monotonic() + timeout
        while not (value := condition()):
            assert time.monotonic() < until, f"{what}\n{spawner.report()}"
            time.sleep(0.02)
        return value

    with redis_server.running() as server:
        environment = {"PROJ_BROKER": server.url(0), "PROJ_BACKEND": server.url(1)}
        options = ["-E"] if library == "celery" else []  # ours notices by itself that somebody listens
        worker = spawner(
            [pythons[library], "-m", library, *WORKER, *options], name="worker", env=environment, cwd=folders[library]
        )
        wait(lambda: " ready." in worker.output(), "the worker is ready")
        client = Client(pythons[library], folders[library], spawner.environment(environment))
        yield World(library, pythons[library], celery_python, folders[library], environment, spawner, client, wait)
        client.close()
        spawner.end_all()


def told_of(world: World, shows: Callable[[str], bool]) -> str:
    """The id of a task that the listener shows: it and the worker know of each other from then on."""
    sent: list[str] = []

    def one_more() -> str | None:
        sent.append(world.client.send("add", 1, 1))
        world.client.get(sent[-1])
        return next((each for each in sent if shows(each)), None)

    return str(world.wait(one_more, "a task is shown"))


def test_celerys_events_show_the_worker_and_its_tasks(world: World) -> None:
    dump = world.celery("events", "--dump", name="dump")
    told_of(world, lambda task_id: f"task succeeded: proj.add({task_id})" in dump.output())
    assert "-> evdump: starting capture..." in dump.output()
    good, bad = world.client.send("add", 2, 3), world.client.send("fail", "oh no")
    world.wait(lambda: f"task failed: proj.fail({bad})" in dump.output(), "the failure is shown")
    world.wait(lambda: f"task succeeded: proj.add({good})" in dump.output(), "the success is shown")
    text = dump.output()
    for kind in ("received", "started"):
        assert f"task {kind}: proj.add({good}) args=(2, 3) kwargs={{}}" in text
    (line,) = [line for line in text.splitlines() if "succeeded" in line and good in line]
    assert line.startswith("w@")
    assert "result=5" in line
    assert "runtime=" in line
    (line,) = [line for line in text.splitlines() if f"task failed: proj.fail({bad})" in line]
    assert "exception=ValueError('oh no', 42)" in line
    world.wait(lambda: "heartbeat: active=" in dump.output(), "a heartbeat is shown")
    assert "processed=" in dump.output()
    assert dump.alive()


def test_flower_shows_the_worker_and_its_tasks(world: World, free_port: Callable[[], int]) -> None:
    port = free_port()
    environment = {**world.environment, "FLOWER_UNAUTHENTICATED_API": "true"}
    world.environment.update(environment)
    world.celery("flower", f"--port={port}", "--address=127.0.0.1", name="flower")

    def ask(path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return json.loads(answer.read())
        except (OSError, urllib.error.HTTPError):
            return {}

    def succeeded(task_id: str) -> bool:
        return bool(ask("/api/tasks").get(task_id, {}).get("state") == "SUCCESS")

    told_of(world, succeeded)  # of the first one that it shows it may have missed the beginning
    task_id = world.client.send("add", 1, 1)
    world.wait(lambda: succeeded(task_id), "a whole task is shown")
    found = ask("/api/tasks")[task_id]
    assert (found["name"], found["args"], found["result"]) == ("proj.add", "(1, 1)", "2")
    assert found["worker"].startswith("w@")
    assert found["received"] <= found["started"] <= found["succeeded"]
    workers = world.wait(lambda: ask("/workers?json=1").get("data"), "the worker is shown")
    (worker,) = workers
    assert worker["hostname"].startswith("w@")
    assert worker["status"] is True
    world.wait(lambda: ask("/workers?json=1")["data"][0]["task-succeeded"] >= 1, "its tasks are counted")


def test_opsqs_events_show_the_worker_and_its_tasks(world: World) -> None:
    events = world.opsq("events", "--json", "--type", "task-*", name="events")
    told_of(world, lambda task_id: '"task-succeeded"' in events.output() and task_id in events.output())
    bad = world.client.send("fail", "oh no")

    def of_bad() -> list[dict[str, Any]]:
        whole = events.output().rpartition("\n")[0].splitlines()
        found = [json.loads(line) for line in whole if line.startswith("{")]
        return [each for each in found if each.get("uuid") == bad]

    world.wait(lambda: len(of_bad()) == 3, "the failure is shown")
    assert [each["type"] for each in of_bad()] == ["task-received", "task-started", "task-failed"]
    assert of_bad()[0]["name"] == "proj.fail"
    assert of_bad()[2]["exception"] == "ValueError('oh no', 42)"
    dump = world.opsq("events", "--dump", "--limit", "1", "--type", "worker-*", name="opsq-dump")
    assert dump.wait() == 0
    assert " heartbeat: " in dump.output()
