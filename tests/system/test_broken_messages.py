"""Broken messages in a queue: the worker lives, what can run runs, the rest is a dead letter with a reason."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
import redis
from support import captures, key_audit, project, redis_server
from support.broken_messages import ROWS, Row, whole
from support.processes import Running, Spawner

from opsq.datastore import keys

#: What a Celery worker does not run, and neither do we; all that it runs, we run too.
LABELS = {row.label: row for row in ROWS}


@dataclass
class World:
    """One worker, its Redis, and what a test asks of them."""

    worker: Running
    client: redis.Redis
    spawner: Spawner = field(repr=False)

    def push(self, *raw: bytes) -> None:
        self.client.lpush("celery", *raw)

    def wait_for(self, condition: Any, what: str) -> Any:
        until = time.monotonic() + 15
        while not (found := condition()):
            assert time.monotonic() < until, f"{what}\n{self.worker.report()}"
            time.sleep(0.005)
        return found

    def state(self, task_id: str) -> str | None:
        raw = self.client.get(keys.result(task_id))
        return json.loads(raw)["status"] if raw else None

    def letter(self, raw: bytes) -> dict[str, Any] | None:
        """The dead letter that holds these bytes."""
        for value in self.client.hvals(keys.dead("celery")):
            record = json.loads(value)
            text = record["message"]
            held = base64.b64decode(text) if record.get("encoding") == "base64" else text.encode()
            if held == raw:
                return record
        return None

    def runs_a_good_one(self) -> None:
        task_id = str(uuid4())
        self.push(json.dumps(whole(task_id)).encode())
        self.wait_for(lambda: self.state(task_id) == "SUCCESS", "a good task runs afterwards")
        assert self.worker.alive()


#: A task of the user's that trips the worker before it begins.
ODD_TASK = """
@app.task(time_limit="soon")
def odd():
    pass
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("broken")
    spawner = Spawner(folder)
    written = project.write(folder / "project", "opsq")
    with (written / "proj.py").open("a") as file:
        file.write(ODD_TASK)
    with redis_server.running() as server:
        worker = spawner(
            [sys.executable, "-m", "opsq", "-A", "proj", "worker", "-c", "1", "-l", "info"],
            name="worker",
            env={"PROJ_BROKER": server.url(), "PROJ_BACKEND": server.url()},
            cwd=written,
        )
        with server.client() as client:
            world = World(worker, client, spawner)
            world.wait_for(lambda: " ready." in worker.output(), "the worker is ready")
            pid = worker.pid
            yield world
            assert worker.alive()
            assert worker.pid == pid
            spawner.end_all()
            assert client.llen("celery") == 0
            assert not client.keys("opsq:inflight:*")
        assert not (problems := key_audit.of_server(server)), problems


def test_every_row_of_the_probe_is_here() -> None:
    for row in captures.required_fields():
        assert row["label"] in LABELS
        if row["ran"]:
            assert LABELS[row["label"]].runs


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_a_message(world: World, row: Row) -> None:
    task_id = f"{uuid4()}"
    raw = row.make(task_id)
    world.client.delete(keys.dead("celery"), keys.dead_index("celery"))
    world.push(raw)
    if row.knows_id:
        world.wait_for(lambda: world.state(task_id) == row.state, f"{row.label}: its result is {row.state}")
    if row.is_dead:
        letter = world.wait_for(lambda: world.letter(raw), f"{row.label}: it is in the dead letters")
        assert letter["reason"]
        assert letter["queue"] == "celery"
        assert letter["id"] == (task_id if row.knows_id else letter["id"])
    world.runs_a_good_one()
    assert world.client.hlen(keys.dead("celery")) == int(row.is_dead)


def test_the_reason_of_an_unknown_task_is_its_name(world: World) -> None:
    task_id = str(uuid4())
    raw = LABELS["unknown task"].make(task_id)
    world.push(raw)
    world.wait_for(lambda: world.state(task_id) == "FAILURE", "its result is a failure")
    stored = json.loads(world.client.get(keys.result(task_id)) or b"")["result"]
    assert stored == {"exc_type": "NotRegistered", "exc_message": ["proj.nope"], "exc_module": "celery.exceptions"}
    assert "proj.nope" in json.dumps(world.wait_for(lambda: world.letter(raw), "it is in the dead letters"))


def test_a_message_that_trips_the_worker_itself_ends_no_process(world: World) -> None:
    message = whole(str(uuid4()))
    message["headers"]["task"] = "proj.odd"
    raw = json.dumps(message).encode()
    world.push(raw)
    letter = world.wait_for(lambda: world.letter(raw), "it is in the dead letters")
    assert "TypeError" in letter["reason"]
    world.runs_a_good_one()
    assert "exited with code" not in world.worker.output()


def test_broken_messages_in_one_batch_block_none_of_the_good_ones(world: World) -> None:
    world.client.delete(keys.dead("celery"), keys.dead_index("celery"))
    messages, good = [], []
    for row in [row for row in ROWS if row.is_dead] * 3:
        messages.append(row.make(str(uuid4())))
        good.append(str(uuid4()))
        messages.append(json.dumps(whole(good[-1])).encode())
    world.push(*messages)
    world.wait_for(lambda: all(world.state(task_id) == "SUCCESS" for task_id in good), "all good ones have run")
    dead = len(messages) - len(good)
    world.wait_for(lambda: world.client.hlen(keys.dead("celery")) == dead, "all broken ones are dead letters")
