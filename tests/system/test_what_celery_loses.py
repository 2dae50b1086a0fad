"""What Celery on Redis loses, doubles or stalls at, each as a test that opsq passes.

The table in docs/guarantees.md names the test of every flaw; those that have a file of their own are not here.
"""

from __future__ import annotations

import os
import random
import selectors
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from chaos.arena import Store
from chaos.far_etas import fill, memory_of
from support import lab as labs
from support.lab import Lab, message, new_id
from support.processes import Running, Spawner
from support.redis_server import RedisServer

from opsq import App

#: kombu's way to run a task twice that takes longer than this (seconds).
VISIBILITY_TIMEOUT_S = 1.0
TASKS = f"""
app.conf.broker_transport_options = {{"visibility_timeout": {VISIBILITY_TIMEOUT_S}}}


@app.task(acks_late=True)
def late(text, seconds=0.0):
    mark("begin", text)
    time.sleep(seconds)
    mark("end", text)


@app.task(rate_limit="1/s", rate_limit_scope="cluster", acks_late=True)
def limited(text):
    mark("begin", text)


@app.task
def key_error():
    raise KeyError("no such thing")
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as opened:
        yield opened


def two_workers(lab: Lab) -> list[Running]:
    """On hosts of their own."""
    return [lab.worker("-c", "1", "--lease", "2", OPSQ_STATE_DIR=str(lab.folder / name)) for name in ("one", "two")]


# -- lost --------------------------------------------------------------------------------------------------------------


def test_a_message_that_comes_while_the_waiter_is_frozen_survives_its_death(lab: Lab) -> None:
    """Celery pops and records in two steps: frozen in BRPOP, then killed, it had lost the message 3 times of 3."""
    for number in range(3):
        queue = f"frozen-{number}"  # each its own: the next worker must not have begun it when it is killed
        worker = lab.worker("-c", "1", "--lease", "1", "-Q", queue)
        os.killpg(worker.pid, signal.SIGSTOP)
        lab.send("late", f"frozen {number}", queue=queue)
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    worker = lab.worker("-c", "1", "--lease", "1", "-Q", "frozen-0,frozen-1,frozen-2")
    for number in range(3):
        lab.wait_mark("end", f"frozen {number}")
        assert len(lab.written("begin", f"frozen {number}")) == 1
    assert worker.stop() == 0


def test_lost_bindings_lose_no_message(lab: Lab) -> None:
    """Celery's routing table are sets in Redis: without them it drops what is sent, and deletes what it restores."""
    worker = lab.worker("-c", "1", "--lease", "1")
    lab.redis.delete(*lab.redis.keys("_kombu.binding*"))
    assert lab.run("add", 1, 2) == 3
    lab.send("late", "in hand", 1.0)
    lab.wait_mark("begin", "in hand")
    lab.redis.delete(*(lab.redis.keys("_kombu.binding*") or ["none"]))
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    again = lab.worker("-c", "1", "--lease", "1")
    lab.wait_mark("end", "in hand")
    assert again.stop() == 0


def test_work_goes_on_within_a_lease_when_a_host_dies_with_messages_in_hand(lab: Lab) -> None:
    """A dead Celery worker's reserve waits for an hour."""
    lease_s = 2.0
    worker = lab.worker("-c", "1", "--lease", str(lease_s), OPSQ_STATE_DIR=str(lab.folder / "dies"))
    lab.push("celery", ("late", "holder", 1.0), *[("late", f"reserve {number}") for number in range(20)])
    lab.wait_mark("begin", "holder")
    other = lab.worker("-c", "1", "--lease", str(lease_s), OPSQ_STATE_DIR=str(lab.folder / "lives"))
    lab.push("celery", ("late", "to be seen"))
    lab.wait_mark("end", "to be seen")
    os.killpg(worker.pid, signal.SIGKILL)
    died = time.time()
    for text in ("holder", *(f"reserve {number}" for number in range(20))):
        assert lab.wait_mark("end", text, 20).time - died < labs.soon(lease_s * 4 / 3 + 1)
    worker.wait()
    assert other.stop() == 0


# -- doubled -----------------------------------------------------------------------------------------------------------


def test_what_takes_longer_than_the_visibility_timeout_runs_once(lab: Lab) -> None:
    """Running, for later, or waiting for its rate: Celery delivers it again after that time, to both its workers."""
    workers = two_workers(lab)
    soon = datetime.now(UTC) + timedelta(seconds=3 * VISIBILITY_TIMEOUT_S)
    ids = [lab.send("late", "long", 4 * VISIBILITY_TIMEOUT_S), lab.send("late", "eta", eta=soon)]
    lab.redis.lpush("celery", message("late", new_id(), ("plain eta",), eta=soon.isoformat()))
    ids += [lab.send("limited", f"limited {number}") for number in range(4)]
    for task_id in ids:
        lab.result(task_id, timeout=15)
    lab.wait_mark("begin", "plain eta")
    for text in ("long", "eta", "plain eta", *(f"limited {number}" for number in range(4))):
        assert len(lab.written("begin", text)) == 1, text
    for worker in workers:
        assert worker.stop() == 0


# -- stalled -----------------------------------------------------------------------------------------------------------


def runs(lab: Lab, text: str) -> None:
    """New tasks are taken, by each of two children."""
    for number in range(4):
        lab.send("nap", f"{text} {number}", 0.2)
    marks = [lab.wait_mark("end", f"{text} {number}") for number in range(4)]
    assert len({mark.pid for mark in marks}) == 2


def test_new_tasks_are_taken_after_several_losses_within_seconds(lab: Lab) -> None:
    """celery#8030: the connection is lost again and again while it is made."""
    worker = lab.worker("-c", "2")
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        lab.redis.client_kill_filter(_type="normal", skipme=True)
        time.sleep(random.uniform(0.01, 0.2))
    runs(lab, "8030")
    assert worker.stop() == 0


def test_new_tasks_are_taken_after_a_restart_of_redis_while_tasks_run(tmp_path: Path, spawn: Spawner) -> None:
    """celery#8091, celery#8384: Redis restarts while tasks run and while more are sent."""
    store = Store(tmp_path / "redis", None, "always")
    (tmp_path / "proj.py").write_text(labs.HEAD + TASKS)
    url = f"redis://127.0.0.1:{store.port}/0"
    app = App("client", broker=url, backend=url, set_as_current=False)
    lab = Lab(tmp_path, spawn, url, RedisServer(store.process, store.port, store.folder / "sock"), store.client(), app)
    try:
        lab.wait_for(lambda: _answers(store), "Redis answers")
        worker = lab.worker("-c", "2")
        for restart in range(3):
            for number in range(2):
                lab.send("late", f"{restart} runs {number}", 1.0)
                lab.wait_mark("begin", f"{restart} runs {number}")
            lab.send("late", f"{restart} waits")
            store.kill()
            time.sleep(random.uniform(0.0, 1.0))
            store.start()
            lab.wait_for(lambda: _answers(store), "Redis answers")
            for text in (f"{restart} runs 0", f"{restart} runs 1", f"{restart} waits"):
                lab.wait_mark("end", text)
            runs(lab, f"8091 {restart}")
        assert worker.stop() == 0
    finally:
        spawn.end_all()
        store.kill()


def _answers(store: Store) -> bool:
    try:
        return store.is_up()
    except (redis.RedisError, OSError):
        return False


class Resetting:
    """A way to a server that resets its connections when it is told to, as balancers and firewalls do with idle ones.

    One thread for all: a socket that another thread reads from cannot be reset.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port, self.resets = server_port, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._wanted, self._done, self._over = threading.Event(), threading.Event(), False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def reset_all(self) -> None:
        """All connections that are open now."""
        self._done.clear()
        self._wanted.set()
        assert self._done.wait(5)

    def close(self) -> None:
        """No way any more."""
        self._over = True
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while not self._over:
            for key, _events in self._selector.select(0.01):
                if key.data is None:
                    self._connect()
                else:
                    self._pass_on(key.fileobj, key.data)
            if self._wanted.is_set():
                self._wanted.clear()
                self._reset()
                self._done.set()

    def _connect(self) -> None:
        client, _address = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._server_port))
        for one, other in ((client, server), (server, client)):
            self._selector.register(one, selectors.EVENT_READ, other)

    def _pass_on(self, source: Any, sink: socket.socket) -> None:
        try:
            data = source.recv(1 << 20)
            sink.sendall(data)
        except OSError:
            data = b""
        if not data:
            for each in (source, sink):
                if each.fileno() >= 0:
                    self._selector.unregister(each)
                    each.close()

    def _reset(self) -> None:
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                found: Any = key.fileobj
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._selector.unregister(found)
                found.close()
                self.resets += 1


def test_new_tasks_are_taken_after_idle_connections_were_reset(lab: Lab) -> None:
    """celery#10205: connections are reset by a peer in between while the worker is idle, with and without an event."""
    wire = Resetting(lab.server.port)
    worker = lab.worker("-c", "2", OPSQ_BROKER_URL=f"redis://127.0.0.1:{wire.port}/0", OPSQ_RESULT_BACKEND=lab.url)
    try:
        for turn in range(3):
            wire.reset_all()
            runs(lab, f"10205 {turn}")
        assert wire.resets > 6
        assert worker.stop() == 0
    finally:
        wire.close()


def test_a_key_error_is_no_lost_broker(lab: Lab) -> None:
    """Celery counts KeyError among the errors of its connection, and reconnects."""
    worker = lab.worker("-c", "1")
    lab.result(lab.send("key_error"), "FAILURE")
    broken = message("add", "x").replace(b'"id": "x", ', b"")
    lab.redis.lpush("celery", broken)
    lab.wait_for(lambda: lab.dead(), "the message without an id is a dead letter")
    assert lab.run("add", 1, 1) == 2
    assert "lost the broker" not in worker.output()
    assert worker.stop() == 0


def test_an_election_ends_no_worker(lab: Lab) -> None:
    """A remote command that ends a lone Celery worker with an IndexError."""
    worker = lab.worker("-c", "1")
    lab.app.control.broadcast("election", arguments={"id": "1", "topic": "task", "action": {"task": "proj.add"}})
    assert lab.run("add", 1, 1) == 2
    assert worker.stop() == 0


# -- memory ------------------------------------------------------------------------------------------------------------


def test_far_etas_take_no_memory_of_the_worker(lab: Lab) -> None:
    """Celery holds each in its memory; a million of them: `python tests/chaos/far_etas.py`."""
    worker = lab.worker("-c", "1")
    assert lab.run("add", 1, 1) == 2
    before = memory_of(psutil.Process(worker.pid))
    fill(lab.redis, "celery", 10_000)
    lab.wait_for(lambda: lab.redis.zcard("opsq:delayed:{celery}") == 10_000, "all are put away", 30)
    assert lab.run("add", 1, 1) == 2
    assert memory_of(psutil.Process(worker.pid)) - before < 12_000_000
    assert worker.stop() == 0
    lab.redis.delete("opsq:delayed:{celery}")


def test_a_call_subscribes_to_nothing(lab: Lab) -> None:
    """Each call of Celery's subscribes to its result before it is sent."""
    lab.app.send_task("proj.add", (1, 1), queue="nobody")
    before = lab.redis.info("commandstats")
    for number in range(10):
        lab.app.send_task("proj.add", (number, 1), queue="nobody")
    after = lab.redis.info("commandstats")
    calls = {name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after}
    assert {name for name, count in calls.items() if count} <= {"cmdstat_lpush", "cmdstat_info"}
    assert calls["cmdstat_lpush"] == 10
    lab.redis.delete("nobody")
