"""Results in another database, on another server, and none at all."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import redis
from support import key_audit, redis_server
from support import lab as labs
from support.lab import Lab
from support.proxy import TURN_SHA, Proxy
from support.redis_server import RedisServer

TASKS = """
@app.task(bind=True, default_retry_delay=0)
def once_more(self):
    if not self.request.retries:
        raise self.retry()
    return "again"


@app.task(time_limit=0.2)
def hard():
    time.sleep(30)


@app.task(bind=True)
def note_and_wait(self):
    mark("waits")
    deadline = time.monotonic() + 20
    while not os.path.exists("go") and time.monotonic() < deadline:
        time.sleep(0.002)
    return "waited"


@app.task(bind=True)
def wait_for_go(self):
    mark("runs", self.request.id)
    deadline = time.monotonic() + 20
    while not os.path.exists(f"go-{self.request.id}") and time.monotonic() < deadline:
        time.sleep(0.002)
    return "ended"


bare = Celery("bare", broker=os.environ["OPSQ_BROKER_URL"])


@bare.task(name="proj.bare")
def without_results(fails=False):
    mark("bare", fails)
    if fails:
        raise ValueError("nobody will know")
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        yield lab


@pytest.fixture(scope="module")
def other_server() -> Iterator[RedisServer]:
    with redis_server.running() as server:
        yield server
        assert not (problems := key_audit.of_server(server)), problems


@pytest.fixture
def worker(lab: Lab) -> Iterator[Any]:
    """Starts workers on queues of their own; they end with the test."""

    def start(*options: str, **environment: str) -> Any:
        return lab.worker("-c", "1", *options, **environment)

    yield start
    lab.end_workers()


def stored(client: redis.Redis, task_id: str) -> dict[str, Any] | None:
    raw: Any = client.get(f"celery-task-meta-{task_id}")
    return json.loads(raw) if raw else None


@pytest.mark.parametrize("place", ["another database", "another server"])
def test_results_are_where_the_settings_say(lab: Lab, other_server: RedisServer, worker: Any, place: str) -> None:
    where, database = (lab.server, 5) if place == "another database" else (other_server, 0)
    worker(OPSQ_RESULT_BACKEND=where.url(database))
    with where.client(database) as results:
        before = int(results.dbsize())  # type: ignore[arg-type]

        def ends(task_id: str, state: str) -> dict[str, Any]:
            return lab.wait_for(lambda: (stored(results, task_id) or {}).get("status") == state, state) and stored(
                results, task_id
            )

        ids = [lab.send("add", number, 1) for number in range(100)]
        for number, task_id in enumerate(ids):
            assert ends(task_id, "SUCCESS")["result"] == number + 1
        failed, retried, killed = lab.send("add", 1), lab.send("once_more"), lab.send("hard")
        assert ends(failed, "FAILURE")["result"]["exc_type"] == "TypeError"
        assert ends(retried, "SUCCESS")["result"] == "again"
        assert ends(killed, "FAILURE")["result"]["exc_type"] == "TimeLimitExceeded"
        lab.wait_for(lab.is_quiet, "all messages are gone")
        assert int(results.dbsize()) == before + 103  # type: ignore[arg-type]
        assert all(0 < int(results.ttl(f"celery-task-meta-{task_id}")) <= 86_400 for task_id in ids)  # type: ignore[arg-type]
    assert not list(lab.redis.scan_iter("celery-task-meta-*"))


def test_the_dead_letters_stay_with_the_broker(lab: Lab, other_server: RedisServer, worker: Any) -> None:
    worker(OPSQ_RESULT_BACKEND=other_server.url())
    task_id = lab.send("unheard_of")
    letter = lab.wait_for(lambda: lab.dead().get(task_id), "it is a dead letter")
    assert letter["reason"] == "unknown task 'proj.unheard_of'"
    with other_server.client() as results:
        record = stored(results, task_id)
    assert record is not None
    assert record["result"]["exc_type"] == "NotRegistered"


def test_a_result_that_its_server_refuses_is_written_later(lab: Lab, other_server: RedisServer, worker: Any) -> None:
    """The task's message stays in flight until its result is stored: results first, then the turn."""
    (lab.folder / "go").unlink(missing_ok=True)
    running = worker(OPSQ_RESULT_BACKEND=other_server.url())
    task_id = lab.send("note_and_wait")
    lab.wait_mark("waits", "")
    with other_server.client() as results:
        results.config_set("maxmemory-policy", "noeviction")
        results.config_set("maxmemory", "1")
        try:
            (lab.folder / "go").touch()
            lab.wait_for(lambda: "held up, trying again" in running.output(), "it is refused")
            assert lab.in_flight() == 1
            assert stored(results, task_id) is None
        finally:
            results.config_set("maxmemory", "0")
        lab.wait_for(lambda: stored(results, task_id), "it is written after all")
    lab.wait_for(lab.is_quiet, "its message is gone")
    assert len(lab.written("waits")) == 1, "it ran once"


class Deaf(Proxy):
    """Lets no turn through while it is deaf."""

    deaf = False

    def _due(self, data: bytes) -> bool:
        return self.deaf and TURN_SHA in data

    def strike(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        """Nothing is forwarded on this connection any more."""


@pytest.fixture
def proxy(lab: Lab) -> Iterator[Deaf]:
    proxy = Deaf(lab.server.port, limit=1)
    yield proxy
    proxy.deaf = False
    lab.end_workers()
    proxy.close()


def test_a_kill_between_result_and_settlement_loses_neither(lab: Lab, other_server: RedisServer, proxy: Deaf) -> None:
    places = {"OPSQ_BROKER_URL": f"redis://127.0.0.1:{proxy.port}/0", "OPSQ_RESULT_BACKEND": other_server.url()}
    running = lab.worker("-c", "1", "-n", "killed@here", **places)
    task_id = lab.send("wait_for_go")
    lab.wait_mark("runs", task_id)
    with other_server.client() as results:
        proxy.deaf = True
        (lab.folder / f"go-{task_id}").touch()
        record = lab.wait_for(lambda: stored(results, task_id), "its result is stored first")
        for process in [running.process, *psutil.Process(running.pid).children(recursive=True)]:
            process.kill()
        running.wait()
        assert (record["result"], lab.in_flight()) == ("ended", 1)
        proxy.deaf = False
        results.delete(f"celery-task-meta-{task_id}")
        lab.worker("-c", "1", "-n", "next@here", **places)
        lab.wait_for(lambda: stored(results, task_id) == record, "its successor stores the result again")
    lab.wait_for(lab.is_quiet, "its message is gone")
    assert len(lab.written("runs", task_id)) == 1, "it ran once"
    assert task_id not in lab.dead()


def test_a_result_that_its_server_refuses_for_good_is_a_dead_letter(
    lab: Lab, other_server: RedisServer, worker: Any
) -> None:
    """Whoever may not write results there: three tries, then the message is buried with the reason; others go on."""
    with other_server.client() as results:
        results.acl_setuser(
            "half", enabled=True, passwords=["+pw"], commands=["+@all"], keys=["celery-task-meta-good*"], channels=["*"]
        )
        worker(OPSQ_RESULT_BACKEND=other_server.url().replace("redis://", "redis://half:pw@"))
        ids = [f"bad-{number}" if number == 5 else f"good-{number}" for number in range(20)]
        lab.redis.lpush("celery", *[labs.message("add", task_id, (1, 1)) for task_id in reversed(ids)])
        lab.wait_for(lambda: lab.dead().get("bad-5"), "it is a dead letter")
        lab.wait_for(lab.is_quiet, "all the others are done")
        assert all(stored(results, task_id) for task_id in ids if task_id != "bad-5")
        assert "its outcome could not be written" in lab.dead()["bad-5"]["reason"]
        assert "refused a command" in lab.dead()["bad-5"]["reason"]
        results.acl_deluser("half")


def test_without_a_place_for_results_tasks_run_all_the_same(lab: Lab) -> None:
    running = lab.spawn(
        [*labs.OPSQ, "-A", "proj:bare", "worker", "-c", "1", "-l", "info"],
        name="bare",
        env=lab.environment,
        cwd=lab.folder,
    )
    good, bad = lab.send("bare"), lab.send("bare", True)
    lab.wait_mark("bare", "True")
    lab.wait_for(lab.is_quiet, "both are done")
    assert not list(lab.redis.scan_iter("celery-task-meta-*"))
    assert "results   not kept" in running.output()
    assert any("succeeded in" in line for line in lab.lines(running, good))
    assert any("raised unexpected: ValueError('nobody will know')" in line for line in lab.lines(running, bad))
    assert running.stop() == 0
