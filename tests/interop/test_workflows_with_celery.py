"""Workflows of Celery's and opsq's clients, done by workers of one kind and of both, part by part in turn."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import key_audit, redis_server, workflow_project
from support.client_peer import Client
from support.processes import Spawner

CELERYS_KEYS = (r"_kombu\.binding.*", "unacked.*", r".*\.reply\.celery\.pidbox")
WORKER_OPTIONS = ("-A", "flows", "worker", "-l", "info", "-c", "2")


@dataclass
class World:
    """A client, and workers of the queues a and b."""

    client: Client
    other: Client
    server: redis_server.RedisServer


@pytest.fixture(
    scope="module",
    params=[
        ("celery", "opsq", "opsq"),
        ("opsq", "celery", "celery"),
        ("celery", "celery", "opsq"),
        ("opsq", "celery", "opsq"),
    ],
    ids=lambda names: f"{names[0]}-to-{names[1]}-and-{names[2]}",
)
def world(
    request: pytest.FixtureRequest, celery_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    pythons = {"celery": celery_python, "opsq": Path(sys.executable)}
    folder = tmp_path_factory.mktemp("flows")
    folders = {library: workflow_project.write(folder / library, library) for library in pythons}
    client, of_a, of_b = request.param
    spawner = Spawner(folder)
    with redis_server.running() as server:
        environment = {"PROJ_BROKER": server.url(0), "PROJ_BACKEND": server.url(1)}
        try:
            running = [
                spawner(
                    [pythons[library], "-m", library, *WORKER_OPTIONS, "-Q", queue, "-n", f"{queue}@%h"],
                    name=f"{library}-worker",
                    env=environment,
                    cwd=folders[library],
                )
                for library, queue in ((of_a, "a,celery"), (of_b, "b"))
            ]
            until = time.monotonic() + 60
            for worker in running:
                while " ready." not in worker.output():
                    assert worker.alive(), worker.report()
                    assert time.monotonic() < until, worker.report()
                    time.sleep(0.01)
            clients = {
                library: Client(pythons[library], folders[library], spawner.environment(environment))
                for library in pythons
            }
            yield World(clients[client], clients["celery" if client == "opsq" else "opsq"], server)
            for each in clients.values():
                each.close()
        finally:
            spawner.end_all()
        assert not (problems := key_audit.of_server(server, CELERYS_KEYS)), problems


def lines(path: Path, count: int) -> list[str]:
    """The lines of a file once there are so many."""
    until = time.monotonic() + 20
    while len(found := path.read_text().splitlines() if path.exists() else []) < count:
        assert time.monotonic() < until, found
        time.sleep(0.01)
    return found


@pytest.mark.parametrize(
    ("flow", "args", "value"),
    [
        ("long_chain", (10,), 10),
        ("parents", (), [4, 3, 2]),
        ("group_values", (6,), [0, 2, 4, 6, 8, 10]),
        ("chord_value", (10,), 90),
        ("in_a_chain", (), 1021),
        ("nested", (), [[10, 6], [[3, 4], 0], [6, [2, 4]]]),
        ("empty", (), []),
        ("maps", (), [[3, 7], [3, 7], [[0, 2], [4, 6], [8]]]),
        ("replaced", (), [5, 15, 6, 6]),
        ("grown", (), 305),
        ("later", (), [3, 6, 3, 6]),
        ("failed_chain", (), ["ValueError", "FAILURE"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_workflow_comes_to_the_same(world: World, flow: str, args: tuple[Any, ...], value: Any) -> None:
    assert world.client.flow(flow, *args) == value


def test_callbacks_and_errbacks(world: World, tmp_path: Path) -> None:
    value, _children = world.client.flow("links", str(tmp_path / "links"))
    assert value == 3
    assert lines(tmp_path / "links", 2) == ["3", "3"]
    task_id, args = world.client.flow("errbacks", str(tmp_path / "errors"))
    assert args == ["no", 42]
    assert sorted(lines(tmp_path / "errors", 2)) == sorted([task_id, f"{task_id} ValueError"])


def test_a_failed_part_fails_the_body(world: World, tmp_path: Path) -> None:
    task_id, error, text = world.client.flow("failed_chord", str(tmp_path / "errors"))
    assert error == "ChordError"
    assert "raised ValueError('no', 42)" in text
    assert lines(tmp_path / "errors", 1) == [task_id]


def test_chords_whose_parts_alternate_run_their_body_once(world: World, tmp_path: Path) -> None:
    expected = [[number] * 3 for number in range(40)]
    assert world.client.flow("many_chords", 40, str(tmp_path / "bodies")) == expected
    assert sorted(lines(tmp_path / "bodies", 40)) == sorted(str(value) for value in expected)
    with world.server.client(1) as redis:
        until = time.monotonic() + 10
        # Of chords that have failed the parts are left until they expire, as in Celery.
        while (left := len(list(redis.scan_iter("celery-taskset-meta-*.j")))) > 2 and time.monotonic() < until:
            time.sleep(0.05)
        assert left <= 2


def test_stamps_and_lineage_reach_every_step(world: World) -> None:
    last, first = world.client.flow("stamped")
    assert [step["stamps"] for step in (first, last)] == [{"customer": "acme"}] * 2
    assert (last["parent"], last["root"]) == (first["id"], first["id"])


def test_each_side_reads_the_others_groups_and_signatures(world: World) -> None:
    assert world.other.flow("read_group", world.client.flow("send_group", 4)) == [0, 2, 4, 6]
    assert world.other.flow("from_json", world.client.flow("to_json")) == 7
