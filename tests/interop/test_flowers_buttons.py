"""Each button of Flower does to a worker of opsq what it says."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import flower, key_audit, project, redis_server
from support.client_peer import Client
from support.flower import Flower
from support.processes import Running, Spawner

TASKS = """

@app.task
def nap(seconds):
    time.sleep(seconds)


@app.task
def quick():
    return 1


app.conf.worker_pool_restarts = True
"""
#: One worker that most buttons are pressed for, and one that scales by itself.
NODE, SCALING = "w@here", "s@here"


@dataclass
class World:
    """Flower, two workers of opsq, a client of Celery."""

    flower: Flower
    client: Client
    start: Callable[..., Running]
    until: Callable[..., Any]

    def stats(self, node: str = NODE) -> dict[str, Any]:
        told = self.client.inspect("stats", destination=[node], timeout=10)
        assert told, node
        found: dict[str, Any] = told[node]
        return found

    def active(self) -> list[str]:
        """The ids of what the first worker runs."""
        told = self.client.inspect("active", destination=[NODE], timeout=10) or {}
        return [task["id"] for task in told.get(NODE, ())]


@pytest.fixture(scope="module")
def world(celery_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("flower")
    pythons = {"celery": celery_python, "opsq": Path(sys.executable)}
    folders = {each: project.write(folder / each, each) for each in pythons}
    for each in folders.values():
        with (each / "proj.py").open("a") as file:
            file.write(TASKS)
    spawn = Spawner(folder)

    def until(look: Callable[[], Any], what: str, timeout: float = 20) -> Any:
        end = time.monotonic() + timeout
        while not (found := look()):
            assert time.monotonic() < end, f"{what}\n{spawn.report()}"
            time.sleep(0.02)
        return found

    with redis_server.running() as server:
        environment = {"PROJ_BROKER": server.url(0), "PROJ_BACKEND": server.url(1)}

        def start(node: str, queue: str, *options: str) -> Running:
            argv = [sys.executable, "-m", "opsq", "-A", "proj", "worker", "-l", "info", "-n", node, "-Q", queue]
            worker = spawn([*argv, *options], name=node, env=environment, cwd=folders["opsq"])
            until(lambda: " ready." in worker.output(), f"{node} is ready")
            return worker

        try:
            start(NODE, "celery", "-c", "1")
            start(SCALING, "other", "--autoscale", "4,1")
            client = Client(celery_python, folders["celery"], spawn.environment(environment))
            shown = flower.start(spawn, celery_python, folders["celery"], environment, redis_server.free_port())
            until(lambda: shown.knows(NODE) and shown.knows(SCALING), "Flower knows both", 60)
            yield World(shown, client, start, until)
            client.close()
        finally:
            spawn.end_all()
        celerys = (r"_kombu\.binding.*", "unacked.*", r".*\.reply\.celery\.pidbox", r"celeryev\..*")
        assert not (problems := key_audit.of_server(server, celerys)), problems


def test_flower_shows_the_worker_as_it_is(world: World) -> None:
    told = world.flower.ask("/api/workers?refresh=true")[NODE]
    assert told["stats"]["pid"] == world.stats()["pid"]
    assert [queue["name"] for queue in told["active_queues"]] == ["celery"]
    assert {"proj.nap", "proj.add"} <= {name.partition(" ")[0] for name in told["registered"]}
    assert told["conf"]["worker_pool_restarts"] is True


def test_revoke(world: World) -> None:
    task_id = world.client.send("quick", countdown=2)
    assert world.flower.press(f"task/revoke/{task_id}") == f"Revoked '{task_id}'"
    assert world.client.outcome(task_id)["args"] == ["revoked"]


def test_terminate(world: World) -> None:
    task_id = world.client.send("nap", 60)
    world.until(lambda: task_id in world.active(), "it runs")
    world.flower.press(f"task/revoke/{task_id}", terminate="true", signal="SIGKILL")
    assert world.client.outcome(task_id)["state"] == "REVOKED"
    assert world.client.get(world.client.send("quick")) == 1


def test_pool_grow_and_shrink(world: World) -> None:
    assert world.stats()["pool"]["max-concurrency"] == 1
    assert "'w@here'" in world.flower.press(f"worker/pool/grow/{NODE}", n=2)
    assert world.stats()["pool"]["max-concurrency"] == 3
    ids = {world.client.send("nap", 60) for _ in range(3)}
    world.until(lambda: set(world.active()) == ids, "three run at once")
    for task_id in ids:
        world.flower.press(f"task/revoke/{task_id}", terminate="true", signal="SIGKILL")
    assert "'w@here'" in world.flower.press(f"worker/pool/shrink/{NODE}", n=2)
    world.until(lambda: world.stats()["pool"]["max-concurrency"] == 1, "it is one again")


def test_autoscale(world: World) -> None:
    assert "'s@here'" in world.flower.press(f"worker/pool/autoscale/{SCALING}", min=2, max=3)
    world.until(lambda: len(world.stats(SCALING)["pool"]["processes"]) == 2, "it has two children at least")
    assert world.stats(SCALING)["pool"]["max-concurrency"] == 3


def test_rate_limit(world: World) -> None:
    press = "task/rate-limit/proj.quick"
    assert world.flower.press(press, workername=NODE, ratelimit="1/h") == "new rate limit set successfully"
    # One after the other: a child of before a pool was made smaller may still take one of two.
    assert world.client.get(world.client.send("quick")) == 1
    second = world.client.send("quick")
    assert world.client.get(world.client.send("add", 1, 1)) == 2
    assert world.client.state(second) == "PENDING"
    world.flower.press(press, workername=NODE, ratelimit="1000/s")
    assert world.client.get(second) == 1


def test_time_limits(world: World) -> None:
    said = world.flower.press("task/timeout/proj.nap", workername=NODE, soft=0.5, hard=30)
    assert said == "time limits set successfully"
    assert world.client.outcome(world.client.send("nap", 20))["error"] == "SoftTimeLimitExceeded"
    world.flower.press("task/timeout/proj.nap", workername=NODE, soft=300, hard=300)


def test_add_and_cancel_consumer(world: World) -> None:
    assert world.flower.press(f"worker/queue/add-consumer/{NODE}", queue="extra") == "add consumer extra"
    assert world.client.get(world.client.send("quick", queue="extra")) == 1
    said = world.flower.press(f"worker/queue/cancel-consumer/{NODE}", queue="extra")
    assert said == "no longer consuming from extra"

    def queues() -> list[str]:
        told = world.client.inspect("active_queues", destination=[NODE], timeout=10) or {}
        return [queue["name"] for queue in told.get(NODE, ())]

    world.until(lambda: queues() == ["celery"], "it has let go of it")


def test_pool_restart(world: World) -> None:
    world.client.get(world.client.send("quick"))
    before = world.stats()["pool"]["processes"]
    assert "'w@here'" in world.flower.press(f"worker/pool/restart/{NODE}")
    world.until(lambda: not set(world.stats()["pool"]["processes"]) & set(before), "all children are others")
    assert world.client.get(world.client.send("quick")) == 1


def test_shutdown(world: World) -> None:
    worker = world.start("x@here", "third", "-c", "1")
    world.until(lambda: world.flower.knows("x@here"), "Flower knows it")
    assert world.flower.press("worker/shutdown/x@here") == "Shutting down!"
    assert worker.wait() == 0


def test_a_task_and_its_result_are_shown(world: World) -> None:
    task_id = world.client.send("add", 20, 1)
    world.client.get(task_id)
    assert world.flower.ask(f"/api/task/result/{task_id}")["result"] == 21
    world.until(lambda: "proj.add" in world.flower.ask("/api/task/types").get("task-types", ()), "its type is shown")
    told = world.until(lambda: world.flower.ask(f"/api/task/info/{task_id}"), "it is shown")
    assert (told["name"], told["worker"], told["args"]) == ("proj.add", NODE, "(20, 1)")
