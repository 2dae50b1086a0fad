"""Celery's clients with opsq's workers, and opsq's clients with Celery's workers, over one Redis.

Celery with Celery runs the same tests: what they expect is what Celery does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from support import key_audit, project, redis_server
from support.client_peer import Client
from support.processes import Running, Spawner

WORKER_OPTIONS = ["-A", "proj", "worker", "-l", "info", "-c", "2", "-Q", "celery,other", "-n", "w@%h"]


@dataclass
class World:
    """One client and one worker that share a Redis; broker and results in different databases."""

    client: Client
    worker: Running
    server: redis_server.RedisServer


@pytest.fixture(
    scope="module",
    params=[("celery", "opsq"), ("opsq", "celery"), ("opsq", "opsq"), ("celery", "celery")],
    ids=lambda pair: f"{pair[0]}-to-{pair[1]}",
)
def world(
    request: pytest.FixtureRequest, celery_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    pythons = {"celery": celery_python, "opsq": Path(sys.executable)}
    folder = tmp_path_factory.mktemp("interop")
    folders = {library: project.write(folder / library, library) for library in pythons}
    client_library, worker_library = request.param
    spawner = Spawner(folder)
    with redis_server.running() as server:
        environment = {"PROJ_BROKER": server.url(0), "PROJ_BACKEND": server.url(1)}
        worker = spawner(
            [pythons[worker_library], "-m", worker_library, *WORKER_OPTIONS],
            name=f"{worker_library}-worker",
            env=environment,
            cwd=folders[worker_library],
        )
        client = Client(pythons[client_library], folders[client_library], spawner.environment(environment))
        until = time.monotonic() + 30
        while " ready." not in worker.output():
            assert worker.alive(), worker.report()
            assert time.monotonic() < until, worker.report()
            time.sleep(0.01)
        yield World(client, worker, server)
        client.close()
        assert worker.alive(), worker.report()
        spawner.end_all()
        assert not (problems := key_audit.of_server(server, CELERYS_KEYS)), problems
        for queue in ("celery", "other"):
            with server.client() as redis:
                assert redis.llen(queue) == 0


CELERYS_KEYS = (r"_kombu\.binding.*", "unacked.*", r".*\.reply\.celery\.pidbox")


def test_the_result_of_a_call_comes_back(world: World) -> None:
    assert world.client.get(world.client.send("add", 2, 3)) == 5


def test_values_of_all_kinds_go_both_ways(world: World) -> None:
    sent = [
        *(datetime(2026, 1, 2, 3, 4, 5, 678, UTC), date(2026, 1, 2), Decimal("1.50"), UUID(int=7), b"abc", b"\xff\xfe"),
        *("é \U0001f600", 10**30, 1.5, None, True, {"a": [1, {"b": "ü"}]}),
    ]
    args, kwargs = world.client.get(world.client.send("echo", *sent, _kwargs={"é": "ü", "when": sent[0]}))
    assert (args, kwargs) == (sent, {"é": "ü", "when": sent[0]})


def test_an_error_comes_back_with_its_class_its_arguments_and_its_traceback(world: World) -> None:
    outcome = world.client.outcome(world.client.send("fail", "bad input"))
    assert outcome["state"] == "FAILURE"
    assert (outcome["error"], outcome["args"], outcome["own_class"]) == ("ValueError", ["bad input", 42], True)
    assert "raise ValueError(message, 42)" in outcome["traceback"]


def test_an_error_of_the_project_comes_back_as_its_own_class(world: World) -> None:
    outcome = world.client.outcome(world.client.send("fail_oddly"))
    assert (outcome["error"], outcome["args"], outcome["own_class"]) == ("Odd", ["odd", 7], True)


@pytest.mark.parametrize("how", ["countdown", "eta"])
def test_a_task_for_later_does_not_run_sooner(world: World, how: str) -> None:
    sent = time.time()
    options = {"countdown": 1} if how == "countdown" else {"eta": datetime.now(UTC) + timedelta(seconds=1)}
    assert 1.0 <= world.client.get(world.client.send("now", **options)) - sent < 4


def test_a_retried_task_ends_well_under_its_own_id(world: World) -> None:
    assert world.client.get(world.client.send("flaky", 2)) == 2


def test_a_task_that_is_retried_too_often_fails_with_the_cause(world: World) -> None:
    outcome = world.client.outcome(world.client.send("flaky", 9))
    assert (outcome["state"], outcome["error"], outcome["args"]) == ("FAILURE", "Odd", ["not yet"])


def test_a_result_that_nobody_wants_is_not_stored(world: World, tmp_path: Path) -> None:
    path = tmp_path / "effect"
    task_id = world.client.send("write", str(path), "done")
    last = world.client.send("add", 1, 1)
    world.client.get(last)
    until = time.monotonic() + 10
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert path.read_text() == "done"
    assert world.client.state(task_id) == "PENDING"
    with world.server.client(1) as redis:
        assert redis.exists(f"celery-task-meta-{task_id}") == 0


def test_a_single_call_can_do_without_its_result(world: World) -> None:
    task_id = world.client.send("add", 1, 1, ignore_result=True)
    world.client.get(world.client.send("add", 1, 1))
    assert world.client.state(task_id) == "PENDING"


def test_an_unknown_task_fails_for_its_caller(world: World) -> None:
    outcome = world.client.outcome(world.client.send_by_name("proj.nope", 1))
    assert (outcome["state"], outcome["error"], outcome["args"]) == ("FAILURE", "NotRegistered", ["proj.nope"])


def test_an_expired_task_is_revoked(world: World) -> None:
    outcome = world.client.outcome(world.client.send("now", expires=datetime.now(UTC) - timedelta(seconds=5)))
    assert (outcome["state"], outcome["error"], outcome["args"]) == ("REVOKED", "TaskRevokedError", ["expired"])


def test_wrong_arguments_fail_for_their_caller(world: World) -> None:
    outcome = world.client.outcome(world.client.send_by_name("proj.add", 1))
    assert (outcome["state"], outcome["error"]) == ("FAILURE", "TypeError")


@pytest.mark.parametrize("priority", [0, 3, 6, 9])
def test_every_priority_is_served(world: World, priority: int) -> None:
    assert world.client.get(world.client.send("add", 1, priority, priority=priority)) == 1 + priority


def test_another_queue_is_served(world: World) -> None:
    task_id = world.client.send("about", queue="other")
    assert world.client.get(task_id) == {"id": task_id, "name": "proj.about", "queue": "other"}


@pytest.mark.parametrize("compression", ["zlib", "bzip2", "lzma", "brotli", "zstd"])
def test_a_compressed_message_is_read(world: World, compression: str) -> None:
    assert world.client.get(world.client.send("echo", "x" * 5000, compression=compression)) == [["x" * 5000], {}]


def test_many_calls_all_come_back(world: World) -> None:
    ids = [world.client.send("add", number, number) for number in range(200)]
    assert [world.client.get(task_id) for task_id in ids] == [2 * number for number in range(200)]


def test_a_soft_time_limit_is_raised_inside_the_task(world: World) -> None:
    outcome = world.client.outcome(world.client.send("too_long"))
    assert (outcome["state"], outcome["error"]) == ("FAILURE", "SoftTimeLimitExceeded")


def test_a_hard_time_limit_ends_the_task_and_says_so(world: World) -> None:
    outcome = world.client.outcome(world.client.send("much_too_long"))
    assert (outcome["state"], outcome["error"], outcome["args"]) == ("FAILURE", "TimeLimitExceeded", [1])
    assert world.client.get(world.client.send("add", 1, 2)) == 3
