"""Celery of several years beside opsq: its clients with opsq's workers, opsq's clients with its workers.

The newest is always here; `OPSQ_TEST_CELERY=4.4,5.4,5.6` adds older ones: their kombu binds differently, and messages
of 4.4 lack half of the headers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support import celery_venv, key_audit, redis_server, workflow_project
from support.client_peer import Client
from support.processes import Spawner

CELERYS_KEYS = (r"_kombu\.binding.*", "unacked.*", r".*\.reply\.celery\.pidbox")
#: Whose client -> the queue of the other kind's worker.
WAYS = {"celery": "b", "opsq": "a"}
both_ways = pytest.mark.parametrize("way", WAYS)


@dataclass
class World:
    """A Celery worker (queue a), one of opsq (queue b), a client of either kind."""

    version: str
    clients: dict[str, Client]
    server: redis_server.RedisServer

    def send(self, way: str, task: str, *args: Any, **options: Any) -> str:
        """A call of one kind's client for the other kind's worker; returns the id."""
        return self.clients[way].send(task, *args, queue=WAYS[way], **options)

    def run(self, way: str, task: str, *args: Any, **options: Any) -> Any:
        """What it comes to."""
        return self.clients[way].get(self.send(way, task, *args, **options))


@pytest.fixture(scope="module", params=[celery_venv.NEWEST, *celery_venv.older()])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    pythons = {"celery": celery_venv.python(request.param), "opsq": Path(sys.executable)}
    folder = tmp_path_factory.mktemp("versions")
    folders = {library: workflow_project.write(folder / library, library) for library in pythons}
    spawner = Spawner(folder)
    with redis_server.running() as server:
        environment = {"PROJ_BROKER": server.url(0), "PROJ_BACKEND": server.url(1), "C_FORCE_ROOT": "1"}
        try:
            workers = []
            for library, queue in (("celery", "a,celery"), ("opsq", "b")):
                # Options after the command, as 4.4 wants them too.
                options = ["-A", "flows", "-l", "info", "-c", "2", "-Q", queue, "-n", f"{library}@here"]
                argv = [pythons[library], "-m", library, *options[:2], "worker", *options[2:]]
                workers.append(spawner(argv, name=f"{library}-worker", env=environment, cwd=folders[library]))
            clients = {
                library: Client(pythons[library], folders[library], spawner.environment(environment))
                for library in pythons
            }
            until = time.monotonic() + 60
            for worker in workers:
                while " ready." not in worker.output():
                    assert worker.alive(), worker.report()
                    assert time.monotonic() < until, worker.report()
                    time.sleep(0.01)
            yield World(request.param, clients, server)
            for client in clients.values():
                client.close()
        finally:
            spawner.end_all()
        assert not (problems := key_audit.of_server(server, CELERYS_KEYS)), problems


def test_the_worker_that_answers_is_the_celery_that_is_meant(world: World) -> None:
    assert world.run("opsq", "version").startswith(f"celery {world.version}.")
    assert world.run("celery", "version").startswith("opsq ")


@both_ways
@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml", "pickle"])
def test_calls_in_every_serializer(world: World, way: str, serializer: str) -> None:
    value = {"a": [1, 2.5, None, True, "é"], "b": {"c": -(2**40)}}
    assert world.run(way, "give", value, _kwargs={"k": "ü"}, serializer=serializer) == [[value], {"k": "ü"}]


@both_ways
def test_compressed_calls(world: World, way: str) -> None:
    """What the environment of each version knows."""
    names = ["zlib", "gzip", "bzip2", "lzma", *([] if world.version == "4.4" else ["brotli", "zstd"])]
    ids = [world.send(way, "give", "x" * 3000, compression=name) for name in names]
    assert [world.clients[way].get(task_id) for task_id in ids] == [[["x" * 3000], {}]] * len(names)


@both_ways
def test_a_megabyte_goes_and_comes(world: World, way: str) -> None:
    text = "0123456789abcdef" * 65_536
    assert world.run(way, "echo", text) == text
    assert world.run(way, "echo", text, compression="zlib", serializer="pickle") == text


@both_ways
def test_values_that_json_does_not_know(world: World, way: str) -> None:
    """A point in time comes as kombu of that version writes it."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    came = world.run(way, "echo", moment)
    if isinstance(came, str):  # kombu 4.6 has no marks
        came = datetime.fromisoformat(came)
    assert came == moment


@both_ways
def test_errors_retries_and_unknown_tasks(world: World, way: str) -> None:
    client = world.clients[way]
    outcome = client.outcome(world.send(way, "fail"))
    assert (outcome["state"], outcome["error"], outcome["args"]) == ("FAILURE", "ValueError", ["no", 42])
    assert 'raise ValueError("no", 42)' in outcome["traceback"]
    assert world.run(way, "flaky", 2) == 2
    outcome = client.outcome(world.send(way, "flaky", 9))
    assert (outcome["state"], outcome["args"]) == ("FAILURE", ["not yet", 9])


@both_ways
def test_later_too_late_and_by_priority(world: World, way: str) -> None:
    sent = time.time()
    later = world.send(way, "now", countdown=0.6)
    late = world.send(way, "now", expires=datetime.now(UTC) - timedelta(seconds=5))
    urgent = [world.send(way, "add", 1, priority, priority=priority) for priority in (0, 3, 6, 9)]
    client = world.clients[way]
    assert [client.get(task_id) for task_id in urgent] == [1, 4, 7, 10]
    outcome = client.outcome(late)
    assert (outcome["state"], outcome["error"]) == ("REVOKED", "TaskRevokedError")
    assert client.get(later) - sent >= 0.6


FLOWS = [
    ("long_chain", (6,), 6),
    ("parents", (), [4, 3, 2]),
    ("group_values", (4,), [0, 2, 4, 6]),
    ("maps", (), [[3, 7], [3, 7], [[0, 2], [4, 6], [8]]]),
]
#: Where chords are in it. Workers of 4.4 keep their parts otherwise than all that came later.
CHORDS = [
    ("chord_value", (6,), 30),
    ("in_a_chain", (), 1021),
    ("later", (), [3, 6, 3, 6]),
    ("failed_chain", (), ["ValueError", "FAILURE"]),
]


@both_ways
def test_workflows_whose_parts_go_to_both_workers_in_turn(world: World, way: str) -> None:
    world.clients[way].flow("only", "a", "b")
    flows = [*FLOWS, *([] if world.version == "4.4" else CHORDS)]
    assert [world.clients[way].flow(flow, *args) for flow, args, _ in flows] == [value for _, _, value in flows]


def test_workflows_of_celerys_client_with_chords_in_them(world: World) -> None:
    """All parts at the worker of opsq; a client of 4.4 tells of their number in another way."""
    client = world.clients["celery"]
    client.flow("only", "b")
    flows = [flow for flow in CHORDS if flow[0] != "later"]
    assert [client.flow(flow, *args) for flow, args, _ in flows] == [value for _, _, value in flows]


@both_ways
def test_callbacks_and_errbacks(world: World, way: str, tmp_path: Path) -> None:
    client = world.clients[way]
    client.flow("only", "a", "b")
    assert client.flow("links", str(tmp_path / "links"))[0] == 3
    told = [client.flow("told", str(tmp_path / "errors")) for _ in range(2)]
    errors, until = tmp_path / "errors", time.monotonic() + 20
    while not errors.exists() or len(errors.read_text().splitlines()) < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert sorted(errors.read_text().splitlines()) == sorted(f"{task_id} ValueError" for task_id in told)


@pytest.mark.parametrize("queue", ["a", "b"])
def test_calls_of_protocol_1_by_celerys_client(world: World, queue: str) -> None:
    """Celery's worker shows what is to come of them."""
    expected = [[["é"], {"k": 1}]] * 6 + [2, 3, [1, 2, 3], 4, "ValueError"]
    assert world.clients["celery"].flow("by_protocol_1", queue) == expected


@both_ways
def test_each_side_reads_what_the_other_has_sent_and_saved(world: World, way: str) -> None:
    [other] = world.clients.keys() - {way}
    task_id = world.send(way, "fail")
    world.clients[way].outcome(task_id)
    assert world.clients[other].outcome(task_id)["args"] == ["no", 42]
    group_id = world.clients[way].flow("send_group", 4)
    # Celery's clients subscribe and read over two connections, whose order is not theirs: what is set in between they
    # miss. So all is there when the other side reads it; that a result comes later is another test's matter.
    assert world.clients["opsq"].flow("read_group", group_id) == [0, 2, 4, 6]
    if (way, world.version) != ("celery", "4.4"):  # who reads again what it has sent itself waits for ever there
        assert world.clients["celery"].flow("read_group", group_id) == [0, 2, 4, 6]
    if world.version != "4.4":
        assert world.clients[other].flow("from_json", world.clients[way].flow("to_json")) == 7


@both_ways
def test_remote_commands_reach_both_workers(world: World, way: str) -> None:
    client = world.clients[way]
    replies = client.broadcast("ping", limit=2, timeout=10)
    assert {name for reply in replies for name in reply} == {"celery@here", "opsq@here"}
    told = client.broadcast("registered", limit=2, timeout=10)
    tasks = {name: set(names) for reply in told for name, names in reply.items()}
    assert "flows.add" in tasks["celery@here"] & tasks["opsq@here"]
    task_id, until = f"revoked-by-{way}", time.monotonic() + 30
    client.revoke(task_id)
    while not all(task_id in ids for told in client.broadcast("revoked", limit=2, timeout=10) for ids in told.values()):
        assert time.monotonic() < until
    assert world.send(way, "now", task_id=task_id) == task_id  # only now: no countdown is long enough on a busy machine
    assert client.outcome(task_id)["state"] == "REVOKED"
