"""Waiting for results on one connection: many threads, a server that restarts, a fork, what others announce."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from support import redis_server

from opsq import App
from opsq.backends.base import Format, encode_meta
from opsq.backends.redis import RedisBackend
from opsq.backends.waiting import STALE, Subscriber
from opsq.exceptions import BrokerError, RefusedError, TimeoutError
from opsq.result.sets import ResultSet


@pytest.fixture
def backend(redis_url: str, redis_client: redis.Redis, wait_for: Callable[..., Any]) -> RedisBackend:
    """A place for results on a clean database, to which nobody listens any more."""
    redis_client.client_kill_filter(_type="pubsub")
    wait_for(lambda: not redis_client.pubsub_channels())
    return RedisBackend(redis_url, Format())


def store(backend: RedisBackend, task_id: str, value: Any, state: str = "SUCCESS") -> None:
    backend.store_records([(backend.key(task_id), 100, encode_meta(backend.format, task_id, state, value))])


class Waits(threading.Thread):
    """A thread that waits for a result."""

    def __init__(self, backend: RedisBackend, *ids: str, timeout_s: float | None = 20) -> None:
        super().__init__(daemon=True)
        self.backend, self.ids, self.timeout_s = backend, ids, timeout_s
        self.found: dict[str, Any] = {}
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            metas = self.backend.wait(self.ids, self.timeout_s, interval_s=60)
            self.found = {task_id: meta["result"] for task_id, meta in metas.items()}
        except BaseException as error:
            self.error = error

    def done(self) -> dict[str, Any]:
        self.join(20)
        assert not self.is_alive()
        assert self.error is None, self.error
        return self.found


def subscribed(client: redis.Redis, *keys: str) -> bool:
    """Whether somebody listens to all of these."""
    return all(count for _key, count in client.pubsub_numsub(*keys))


@pytest.fixture
def listens(redis_client: redis.Redis, wait_for: Callable[..., Any]) -> Callable[..., None]:
    """Wait until somebody waits for results of these ids."""

    def wait(backend: RedisBackend, *ids: str) -> None:
        names = [backend.key(task_id) for task_id in ids]
        wait_for(lambda: subscribed(redis_client, *names), what=f"somebody listens to {names}")

    return wait


def test_a_result_that_is_there_comes_at_once(backend: RedisBackend) -> None:
    store(backend, "t1", [1, 2])
    assert backend.wait(["t1"], 5)["t1"]["result"] == [1, 2]


def test_a_result_that_comes_later_wakes_the_waiter(backend: RedisBackend, listens: Callable[..., None]) -> None:
    waits = Waits(backend, "t1")
    listens(backend, "t1")
    store(backend, "t1", 42)
    assert waits.done() == {"t1": 42}


def test_states_on_the_way_do_not_end_the_wait(backend: RedisBackend, listens: Callable[..., None]) -> None:
    seen: list[str] = []
    found: dict[str, Any] = {}

    def wait() -> None:
        found.update(backend.wait(["t1"], 20, on_message=lambda meta: seen.append(meta["status"])))

    thread = threading.Thread(target=wait)
    thread.start()
    listens(backend, "t1")
    for state in ("STARTED", "PROGRESS", "RETRY", "SUCCESS"):
        store(backend, "t1", None, state)
    thread.join(20)
    assert found["t1"]["status"] == "SUCCESS"
    assert seen == ["STARTED", "PROGRESS", "RETRY", "SUCCESS"]


def test_several_results_are_waited_for_at_once(backend: RedisBackend, listens: Callable[..., None]) -> None:
    store(backend, "t1", 1)
    waits = Waits(backend, "t1", "t2", "t3")
    listens(backend, "t2", "t3")
    store(backend, "t3", 3)
    store(backend, "t2", 2)
    assert waits.done() == {"t1": 1, "t2": 2, "t3": 3}


def test_fifty_threads_share_one_connection(
    backend: RedisBackend, redis_client: redis.Redis, listens: Callable[..., None]
) -> None:
    ids = [f"t{number}" for number in range(50)]
    before = {each["id"] for each in redis_client.client_list()}
    waiting = [Waits(backend, task_id) for task_id in ids]
    listens(backend, *ids)
    added = [each for each in redis_client.client_list() if each["id"] not in before]
    assert len(added) == 1
    for task_id in reversed(ids):
        store(backend, task_id, task_id)
    for waits in waiting:
        assert waits.done() == {waits.ids[0]: waits.ids[0]}


def calls(client: redis.Redis) -> dict[str, int]:
    """How often each command was called."""
    found: Any = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(told["calls"]) for name, told in found.items()}


def test_ten_thousand_results_are_awaited_on_one_connection_and_without_asking(
    backend: RedisBackend, redis_client: redis.Redis, listens: Callable[..., None]
) -> None:
    ids = [f"t{number}" for number in range(10_000)]
    many, one = ids[:9_900], ids[9_900:]
    connections = {each["id"] for each in redis_client.client_list()}
    before = calls(redis_client)
    waiting = [Waits(backend, *many), *(Waits(backend, task_id) for task_id in one)]
    listens(backend, *one, many[-1])
    time.sleep(0.3)  # long enough for anybody who asks again and again
    added = [each for each in redis_client.client_list() if each["id"] not in connections]
    assert len(added) == 1
    records = [(backend.key(task_id), 100, encode_meta(backend.format, task_id, "SUCCESS", task_id)) for task_id in ids]
    backend.store_records(records)
    for waits in waiting:
        assert waits.done() == {task_id: task_id for task_id in waits.ids}
    after = calls(redis_client)
    asked = {name: after.get(name, 0) - before.get(name, 0) for name in ("mget", "get", "exists", "subscribe")}
    assert asked == {"mget": asked["subscribe"], "get": 0, "exists": 0, "subscribe": asked["subscribe"]}
    assert asked["subscribe"] <= len(waiting)
    redis_client.flushdb()


def test_a_set_of_ten_thousand_results_is_one_question(redis_url: str, redis_client: redis.Redis) -> None:
    app = App("caller", broker=redis_url, backend=redis_url, set_as_current=False)
    records = [
        (app.backend.key(f"t{number}"), 100, encode_meta(app.backend.format, f"t{number}", "SUCCESS", number))
        for number in range(10_000)
    ]
    app.backend.store_records(records)
    before = calls(redis_client)
    assert ResultSet(app.AsyncResult(f"t{number}") for number in range(10_000)).get(timeout=20) == [*range(10_000)]
    asked = {name: count - before.get(name, 0) for name, count in calls(redis_client).items()}
    assert (asked["mget"], asked["subscribe"], asked.get("get", 0)) == (1, 1, 0)
    redis_client.flushdb()


def test_two_threads_may_wait_for_the_same_result(backend: RedisBackend, listens: Callable[..., None]) -> None:
    both = [Waits(backend, "t1"), Waits(backend, "t1")]
    listens(backend, "t1")
    store(backend, "t1", 1)
    assert [waits.done() for waits in both] == [{"t1": 1}, {"t1": 1}]


def test_the_lead_is_passed_on_when_the_leader_has_its_result(
    backend: RedisBackend, listens: Callable[..., None]
) -> None:
    leader = Waits(backend, "t1")
    listens(backend, "t1")
    others = [Waits(backend, "t2"), Waits(backend, "t3")]
    listens(backend, "t2", "t3")
    store(backend, "t1", 1)
    assert leader.done() == {"t1": 1}
    store(backend, "t3", 3)
    assert others[1].done() == {"t3": 3}
    store(backend, "t2", 2)
    assert others[0].done() == {"t2": 2}


def test_the_lead_is_passed_on_when_the_leaders_time_is_up(backend: RedisBackend, listens: Callable[..., None]) -> None:
    leader = Waits(backend, "t1", timeout_s=0.3)
    listens(backend, "t1")
    other = Waits(backend, "t2")
    listens(backend, "t2")
    leader.join(20)
    assert isinstance(leader.error, TimeoutError)
    store(backend, "t2", 2)
    assert other.done() == {"t2": 2}


def test_what_comes_too_late_is_a_timeout(backend: RedisBackend) -> None:
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match="the result of t1 did not come in time"):
        backend.wait(["t1"], 0.2)
    assert 0.2 <= time.monotonic() - begin < 5


def test_the_caller_is_asked_each_interval(backend: RedisBackend) -> None:
    asked: list[float] = []
    with pytest.raises(TimeoutError):
        backend.wait(["t1"], 0.5, on_interval=lambda: asked.append(time.monotonic()), interval_s=0.1)
    assert 3 <= len(asked) <= 5


def test_channels_are_given_up_some_together_with_a_later_question(
    backend: RedisBackend, redis_client: redis.Redis
) -> None:
    most, before = 0, calls(redis_client).get("unsubscribe", 0)
    for number in range(300):
        store(backend, f"t{number}", number)
        backend.wait([f"t{number}"], 5)
        most = max(most, len(redis_client.pubsub_channels()))
    assert most <= STALE + 1
    assert calls(redis_client)["unsubscribe"] - before <= 300 / STALE


def test_a_closed_connection_is_made_anew(
    backend: RedisBackend, redis_client: redis.Redis, listens: Callable[..., None]
) -> None:
    store(backend, "t0", 0)
    backend.wait(["t0"], 5)
    redis_client.client_kill_filter(_type="pubsub")
    store(backend, "t1", 1)
    assert backend.wait(["t1"], 5)["t1"]["result"] == 1
    waits = Waits(backend, "t2")
    listens(backend, "t2")
    redis_client.client_kill_filter(_type="pubsub")
    store(backend, "t2", 2)
    assert waits.done() == {"t2": 2}


def test_a_record_that_cannot_be_read_is_an_error_at_once(backend: RedisBackend) -> None:
    backend.store_records([(backend.key("t1"), 100, b"{nonsense")])
    with pytest.raises(ValueError, match="cannot read JSON"):
        backend.wait(["t1"], 5)


def test_an_interrupted_leader_costs_nobody_a_result(
    backend: RedisBackend, listens: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(_number: int, _frame: Any) -> None:
        raise Interrupted

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    before = signal.signal(signal.SIGALRM, interrupt)
    other: list[Waits] = []

    def join_in() -> None:
        listens(backend, "t1")
        other.append(Waits(backend, "t2"))
        listens(backend, "t2")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    helper = threading.Thread(target=join_in)
    helper.start()
    try:
        with pytest.raises(Interrupted):
            backend.wait(["t1"], 20)
    finally:
        signal.signal(signal.SIGALRM, before)
    helper.join()
    store(backend, "t2", 2)
    assert other[0].done() == {"t2": 2}


FORKS = """
import os, sys, threading
from opsq.backends.base import Format
from opsq.backends.redis import RedisBackend

backend = RedisBackend(sys.argv[1], Format())
backend.wait(["t0"], 5)
waiting = threading.Thread(target=backend.wait, args=(["mine"], 20))
waiting.start()
while backend._subscriber._leader is None:
    pass
pid = os.fork()
if pid == 0:
    os._exit(0 if backend.wait(["child"], 20)["child"]["result"] == "c" else 1)
waiting.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_forked_child_waits_on_a_connection_of_its_own(backend: RedisBackend, listens: Callable[..., None]) -> None:
    store(backend, "t0", 0)
    backend.wait(["t0"], 5)
    waits = Waits(backend, "parent")
    listens(backend, "parent")
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", FORKS, backend.url])
    listens(backend, "mine", "child")
    store(backend, "mine", "m")
    store(backend, "child", "c")
    assert process.wait(20) == 0
    store(backend, "parent", "p")
    assert waits.done() == {"parent": "p"}


# -- servers that go away ----------------------------------------------------------------------------------------------


class Server:
    """A server that can be killed and started again with its data."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.url = f"redis://127.0.0.1:{port}/0"
        self.client = redis.Redis(port=port)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        argv = [redis_server.binary(), "--port", str(self.port), "--dir", str(self.folder), "--save", ""]
        argv += ["--appendonly", "yes", "--appendfsync", "always", "--logfile", str(self.folder / "log"), *options]
        self.process = subprocess.Popen(argv, preexec_fn=redis_server.die_with_parent)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.01)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def server(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Server]:
    """A server with an append-only file."""
    server = Server(tmp_path, free_port())
    server.start()
    yield server
    server.client.close()
    server.kill()


def test_a_restart_of_the_server_loses_no_answer(server: Server, wait_for: Callable[..., Any]) -> None:
    backend = RedisBackend(server.url, Format())
    wait_for(lambda: _answers(server.client))
    waiting = [Waits(backend, f"t{number}", timeout_s=None) for number in range(5)]
    names = [backend.key(f"t{number}") for number in range(5)]
    wait_for(lambda: subscribed(server.client, *names))
    for number in range(3):
        store(backend, f"t{number}", number)  # announced to a connection that may not have been read yet
    server.kill()
    server.start()
    wait_for(lambda: _answers(server.client))
    wait_for(lambda: subscribed(server.client, *names[3:]), what="those who wait ask again")
    for number in (3, 4):
        store(backend, f"t{number}", number)
    for number, waits in enumerate(waiting):
        assert waits.done() == {f"t{number}": number}


def test_a_result_stored_while_the_connection_is_down_is_found(server: Server, wait_for: Callable[..., Any]) -> None:
    backend = RedisBackend(server.url, Format())
    wait_for(lambda: _answers(server.client))
    waits = Waits(backend, "t1")
    wait_for(lambda: subscribed(server.client, backend.key("t1")))
    # in one transaction: whoever listens loses the connection before the record is announced
    pipe = server.client.pipeline(transaction=True)
    pipe.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    pipe.set(backend.key("t1"), encode_meta(backend.format, "t1", "SUCCESS", 1), ex=100)
    pipe.execute()
    assert waits.done() == {"t1": 1}


def test_time_is_up_also_while_the_server_is_away(server: Server, wait_for: Callable[..., Any]) -> None:
    backend = RedisBackend(server.url, Format())
    wait_for(lambda: _answers(server.client))
    waits = Waits(backend, "t1", timeout_s=1)
    wait_for(lambda: subscribed(server.client, backend.key("t1")))
    server.kill()
    waits.join(10)
    assert isinstance(waits.error, TimeoutError)
    assert "cannot be reached" in str(waits.error)


def test_a_long_outage_is_told_to_those_who_wait_without_a_limit(
    server: Server, wait_for: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsq.backends.waiting.OUTAGE_S", 0.5)
    backend = RedisBackend(server.url, Format())
    wait_for(lambda: _answers(server.client))
    waiting = [Waits(backend, name, timeout_s=None) for name in ("t1", "t2")]
    wait_for(lambda: subscribed(server.client, backend.key("t1"), backend.key("t2")))
    server.kill()
    for waits in waiting:
        waits.join(10)
        assert isinstance(waits.error, BrokerError)


def test_a_server_that_was_never_there_is_told_at_once(free_port: Callable[[], int]) -> None:
    backend = RedisBackend(f"redis://127.0.0.1:{free_port()}/0", Format())
    begin = time.monotonic()
    with pytest.raises(BrokerError, match="connection refused"):
        backend.wait(["t1"], 20)
    assert time.monotonic() - begin < 5


def test_a_wrong_password_is_told_at_once(server: Server, wait_for: Callable[..., Any]) -> None:
    wait_for(lambda: _answers(server.client))
    server.client.config_set("requirepass", "secret")
    backend = RedisBackend(f"redis://:wrong@127.0.0.1:{server.port}/0", Format())
    with pytest.raises(RefusedError):
        backend.wait(["t1"], 20)


def _answers(client: redis.Redis) -> bool:
    with suppress(redis.RedisError):
        return bool(client.ping())
    return False


def test_a_subscriber_keeps_nothing_of_those_who_have_gone(redis_url: str) -> None:
    subscriber = Subscriber(redis_url)
    backend = RedisBackend(redis_url, Format())
    for number in range(10):
        updates = subscriber.updates((backend.key(f"t{number}").encode(),), time.monotonic() + 0.01, 1)
        assert list(updates) == []
    assert subscriber._waiters == {}
    assert subscriber._leader is None
