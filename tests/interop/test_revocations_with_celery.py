"""Revocations go both ways: clients and workers of Celery and of opsq."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import neighbours
from support.neighbours import NODES, World


@pytest.fixture(scope="module")
def world(celery_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with neighbours.opened(tmp_path_factory.mktemp("revocations"), celery_python) as world:
        yield world


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("revoke", {"task_id": "nobody-1"}),
        ("revoke", {"task_id": ["nobody-2"], "terminate": True, "signal": "SIGTERM"}),
        ("terminate", {"task_id": "nobody-3", "signal": "KILL"}),
        ("revoke_by_stamped_headers", {"headers": {"tenant": ["t1"]}}),
        ("revoke_by_stamped_headers", {"headers": ["tenant=t2"]}),
        ("revoke_by_stamped_headers", {"headers": {"tenant": ["t1"]}, "terminate": True, "signal": "SIGTERM"}),
    ],
)
def test_revocations_are_answered_as_celery_does(world: World, method: str, arguments: dict[str, Any]) -> None:
    told = world.ask(method, **arguments)
    assert told["opsq"] == told["celery"]
    assert "ok" in told["opsq"]


@pytest.mark.parametrize("sender", NODES)
@pytest.mark.parametrize("worker", NODES)
def test_either_client_revokes_at_either_worker(world: World, sender: str, worker: str) -> None:
    """Sent only when both know of it: no countdown is long enough on a busy machine."""
    client, task_id = world.clients[sender], f"revoked-by-{sender}-at-{worker}"
    world.ask("ping")  # Celery's worker is ready a moment before it hears commands
    client.revoke(task_id)
    world.until(lambda: all(task_id in told for told in world.ask("revoked").values()), "both know")
    assert client.send("nap", 0, queue=f"{worker}q", task_id=task_id) == task_id
    discarded = f"Discarding revoked task: proj.nap[{task_id}]"
    world.until(lambda: discarded in world.workers[worker].output(), "it is not run")
    outcome = client.outcome(task_id)
    assert (outcome["state"], outcome["error"], outcome["args"]) == ("REVOKED", "TaskRevokedError", ["revoked"])


def test_celerys_client_terminates_a_task_of_opsq(world: World) -> None:
    client = world.clients["celery"]
    task_id = client.send("nap", 61, queue="opsqq")
    world.until(lambda: [each["id"] for each in world.ask("active")["opsq"]] == [task_id], "it runs")
    replies = client.broadcast("revoke", task_id=task_id, terminate=True, signal="SIGTERM", limit=2, timeout=10)
    assert {"o@here": {"ok": f"terminate: {task_id}"}} in replies
    outcome = client.outcome(task_id)  # the Celery worker, which does not know the task, stores that it was revoked
    assert (outcome["state"], outcome["error"]) == ("REVOKED", "TaskRevokedError")
    ended = f"Task proj.nap[{task_id}] was terminated (15)"
    world.until(lambda: ended in world.workers["opsq"].output(), "it was terminated")


@pytest.mark.parametrize("asks", [True, False], ids=["asks", "does not ask"])
def test_a_worker_that_starts_asks_celerys_workers_what_is_revoked(world: World, asks: bool) -> None:
    """They have it in memory only; and they are told what Redis knows."""
    task_id, ours = f"told-by-celery-{asks}", f"known-in-redis-{asks}"
    world.ask_one("c@here", "revoke", task_id=task_id)
    with world.server.client(0) as redis:
        redis.zadd("opsq:revoked", {ours: 9e15})
        assert redis.zscore("opsq:revoked", task_id) is None
        folder = world.workers["opsq"].log.parent / "opsq"
        environment = {"PROJ_BROKER": world.server.url(0), "PROJ_BACKEND": world.server.url(1)}
        argv = [sys.executable, "-m", "opsq", "-A", "proj", "worker", "-l", "info", "-Q", "nq", "-n", "n@here"]
        options = [] if asks else ["--without-mingle"]
        newcomer = world.spawn([*argv, *options], name=f"newcomer-{asks}", env=environment, cwd=folder)
        world.until(lambda: " ready." in newcomer.output(), "it is ready")
        if asks:
            world.until(lambda: redis.zscore("opsq:revoked", task_id), "it has taken it over")
            world.until(lambda: ours in world.ask_one("c@here", "revoked"), "Celery's worker knows ours")
            client = world.clients["celery"]
            assert client.send("nap", 0, queue="nq", task_id=task_id) == task_id
            assert client.outcome(task_id)["state"] == "REVOKED"
            told = next(line for line in newcomer.output().splitlines() if "mingle" in line)
            assert "c@here" in told
            assert "o@here" not in told
        else:
            client = world.clients["celery"]
            client.outcome(client.send("nap", 0, queue="nq"))
            assert "mingle" not in newcomer.output()
            assert redis.zscore("opsq:revoked", task_id) is None
        assert newcomer.stop() == 0


def test_a_celery_worker_that_starts_is_told_what_is_revoked(world: World, celery_python: Path) -> None:
    world.clients["celery"].broadcast("revoke", task_id="told-by-opsq", destination=["o@here"], timeout=10)
    environment = {"PROJ_BROKER": world.server.url(0), "PROJ_BACKEND": world.server.url(1)}
    folder = world.workers["celery"].log.parent / "celery"
    argv = [celery_python, "-m", "celery", "-A", "proj", "worker", "-l", "info", "-c", "1", "-Q", "mq", "-n", "m@here"]
    newcomer = world.spawn(argv, name="newcomer", env=environment, cwd=folder)
    world.until(lambda: " ready." in newcomer.output(), "it is ready")

    def told() -> Any:
        """It is ready a moment before it hears commands."""
        return world.clients["celery"].broadcast("revoked", destination=["m@here"], timeout=0.5)

    assert "told-by-opsq" in world.until(told, "it answers")[0]["m@here"]
    assert newcomer.stop() == 0
