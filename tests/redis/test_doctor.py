"""`opsq doctor`: each thing that can be wrong is broken here, and the doctor must name it and what mends it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from support import redis_server
from support.broken_messages import whole
from support.redis_server import RedisServer

from opsq import App
from opsq.cli.doctor import CHECKS, NEEDS_BROKER, Finding, Look
from opsq.datastore import keys
from opsq.runtime.statedir import StateDir
from opsq.schedules import crontab

ALL = {check.name: check for check in (*NEEDS_BROKER, *CHECKS)}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server as it should be: it keeps what it is told."""
    with redis_server.running() as server, server.client() as client:
        client.config_set("appendonly", "yes")
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path / "state")
    state.create()
    return state


class Clinic:
    """Looks at an app with one server, each time anew."""

    def __init__(self, url: str, state: StateDir, **conf: Any) -> None:
        self.url, self.state, self.conf = url, state, conf

    def look(self) -> Look:
        app = App("clinic", broker=self.url, set_as_current=False)
        app.conf.update(self.conf)
        return Look(app, self.state, True)

    def finds(self, check: str) -> list[Finding]:
        """What this check finds."""
        return list(ALL[check].find(self.look()))

    def ailing(self) -> set[str]:
        """The checks that find something."""
        look = self.look()
        return {name for name, check in ALL.items() if list(check.find(look))}


@pytest.fixture
def clinic(server: RedisServer, client: redis.Redis, state: StateDir, tmp_path: Path) -> Iterator[Clinic]:
    assert client.dbsize() == 0
    before = Path.cwd()
    os.chdir(tmp_path)
    yield Clinic(server.url(), state)
    os.chdir(before)


@contextmanager
def set_to(client: redis.Redis, name: str, value: str) -> Iterator[None]:
    before = client.config_get(name)[name]  # type: ignore[index]
    client.config_set(name, value)
    yield
    client.config_set(name, before)


def only(clinic: Clinic, check: str, *words: str) -> None:
    """This check alone finds something, and says these words; all three parts are told."""
    assert clinic.ailing() == {check}
    for finding in clinic.finds(check):
        assert finding.what
        assert finding.why
        assert finding.mend
    told = " ".join(f"{each.what} {each.why} {each.mend}" for each in clinic.finds(check))
    for word in words:
        assert word in told


def test_a_healthy_installation_has_no_finding(clinic: Clinic) -> None:
    assert clinic.ailing() == set()


# -- the server ------------------------------------------------------------------------------------------------------


def test_a_server_that_evicts(clinic: Clinic, client: redis.Redis) -> None:
    with set_to(client, "maxmemory-policy", "allkeys-lru"):
        only(clinic, "eviction", "allkeys-lru", "CONFIG SET maxmemory-policy noeviction")


def test_a_server_that_keeps_nothing(clinic: Clinic, client: redis.Redis) -> None:
    with set_to(client, "appendonly", "no"):
        only(clinic, "persistence", "CONFIG SET appendonly yes")


def test_a_server_that_is_nearly_full(clinic: Clinic, client: redis.Redis) -> None:
    used = int(client.info("memory")["used_memory"])  # type: ignore[index]
    with set_to(client, "maxmemory", str(int(used * 1.15))):
        only(clinic, "memory", "maxmemory")


def test_a_user_who_may_not_ask_for_notices(clinic: Clinic, client: redis.Redis) -> None:
    client.execute_command("ACL", "SETUSER", "deaf", "on", ">pw", "~*", "&*", "+@all", "-client|tracking")
    clinic.url = clinic.url.replace("//", "//deaf:pw@")
    only(clinic, "notices", "CLIENT TRACKING", "+client|tracking")


@contextmanager
def relay(server: RedisServer, change: Callable[[bytes], bytes]) -> Iterator[str]:
    """The URL of a way to the server on which its answers are changed."""
    listener = socket.create_server(("127.0.0.1", 0))
    links: list[socket.socket] = [listener]

    def pump(source: socket.socket, target: socket.socket, how: Callable[[bytes], bytes]) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(how(data))
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", server.port))
                links.extend((near, far))
                for pair in ((near, far, bytes), (far, near, change)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
    listener.shutdown(socket.SHUT_RDWR)
    for link in links:
        link.close()
    thread.join(5)


def test_a_server_that_is_too_old(clinic: Clinic, server: RedisServer) -> None:
    def older(data: bytes) -> bytes:
        def as_old(found: re.Match[bytes]) -> bytes:
            return found[1] + b"6.0.".ljust(len(found[2]), b"1")

        return re.sub(rb"(redis_version:)(\S+)", as_old, data)

    with relay(server, older) as clinic.url:
        only(clinic, "broker version", "Redis 6.0.", "6.2 or newer")


def test_a_server_whose_clock_is_wrong(clinic: Clinic, server: RedisServer) -> None:
    def ahead(data: bytes) -> bytes:
        return re.sub(rb"^(\*2\r\n\$10\r\n)(\d{10})", lambda found: found[1] + b"%d" % (int(found[2]) + 100), data)

    with relay(server, ahead) as clinic.url:
        (finding,) = clinic.finds("clocks")
        assert re.match(r"the broker's clock is (99|100)\.\d s ahead", finding.what)
        assert "timedatectl" in finding.mend


def test_a_server_that_is_far_away(clinic: Clinic, server: RedisServer) -> None:
    def late(data: bytes) -> bytes:
        threading.Event().wait(0.02)
        return data

    with relay(server, late) as clinic.url:
        only(clinic, "latency", "redis-cli --latency")


# -- what flows ------------------------------------------------------------------------------------------------------


def worker(client: redis.Redis, queue: str = "celery", **facts: Any) -> None:
    """A worker as it has written itself down."""
    record = {"id": "w@h:0badcafe", "node": "w@h", "queues": [queue], "tasks": ["proj.send"], "children": [], **facts}
    client.zadd(keys.WORKERS, {"w@h:0badcafe": (time.time() + 60) * 1000})
    client.set(keys.worker("w@h:0badcafe"), json.dumps(record), ex=60)
    client.zadd(keys.consumers(queue), {"w@h:0badcafe:0": (time.time() + 60) * 1000})


def send(client: redis.Redis, queue: str, task: str = "proj.send") -> None:
    message = whole("0f0e0d0c-0000-4000-8000-000000000000")
    message["headers"]["task"] = task
    client.sadd(keys.QUEUES, queue)
    client.lpush(queue, json.dumps(message))


def test_a_queue_that_nobody_consumes(clinic: Clinic, client: redis.Redis) -> None:
    send(client, "mail")
    only(clinic, "consumers", "1 messages wait in 'mail'", "worker -Q mail")


def test_what_is_kept_for_opsq_where_only_celery_is_left(clinic: Clinic, client: redis.Redis) -> None:
    client.sadd(keys.QUEUES, "mail")
    client.zadd(keys.delayed("mail"), {"|{}": 2**53})
    with redis.Redis.from_url(clinic.url, single_connection_client=True) as celery:
        assert celery.connection
        celery.connection.send_command("BRPOP", "mail", 20)
        only(clinic, "consumers", "1 messages of 'mail' are for later", "queues handover --to-celery mail")


def test_a_queue_that_is_paused(clinic: Clinic, client: redis.Redis) -> None:
    client.set(keys.paused("celery"), "1")
    only(clinic, "paused queues", "opsq queues resume celery")


def test_a_task_that_no_worker_registers(clinic: Clinic, client: redis.Redis) -> None:
    worker(client)
    send(client, "celery")
    send(client, "celery", "proj.sned")
    only(clinic, "task names", "'proj.sned'")


def test_messages_in_flight_at_a_consumer_that_nobody_knows(clinic: Clinic, client: redis.Redis) -> None:
    client.hset(keys.inflight("celery", "gone@h:0badcafe:0"), "1", "{}")
    only(clinic, "in flight", "gone@h:0badcafe:0", "ZADD")


def test_messages_in_flight_at_workers_that_are_gone(clinic: Clinic, client: redis.Redis) -> None:
    client.zadd(keys.consumers("celery"), {"gone@h:0badcafe:0": 1})
    client.hset(keys.inflight("celery", "gone@h:0badcafe:0"), "1", "{}")
    only(clinic, "in flight", "1 messages of 'celery'", "worker -Q celery")


def test_workers_of_different_versions(clinic: Clinic, client: redis.Redis) -> None:
    worker(client, version="0.0.1")
    only(clinic, "versions", "w@h 0.0.1")


def test_what_celery_has_left_behind(clinic: Clinic, client: redis.Redis) -> None:
    client.hset("unacked", "tag", "[]")
    client.zadd("unacked_index", {"tag": time.time() - 7200})
    only(clinic, "Celery's leftovers", "for 120 minutes")


def test_dead_letters(clinic: Clinic, client: redis.Redis) -> None:
    client.hset(keys.dead("celery"), "id", "{}")
    only(clinic, "dead letters", "opsq dead --queue celery")


# -- the schedule ----------------------------------------------------------------------------------------------------


@pytest.fixture
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_in_berlin")
def test_hours_without_a_time_zone(clinic: Clinic) -> None:
    clinic.conf["beat_schedule"] = {"nightly": {"task": "proj.send", "schedule": crontab(hour=3, minute=0)}}
    only(clinic, "schedule zone", "'nightly'", "timezone =")
    clinic.conf["timezone"] = "Europe/Berlin"
    assert not clinic.ailing()


def test_an_hour_without_a_minute(clinic: Clinic) -> None:
    clinic.conf["timezone"] = "UTC"
    clinic.conf["beat_schedule"] = {
        "nightly": {"task": "proj.send", "schedule": crontab(hour=3)},
        "often": {"task": "proj.send", "schedule": crontab(minute="*/5")},
        "wrong": "no entry at all",
    }
    only(clinic, "schedule minutes", "'nightly'", "minute=0")


# -- this machine ----------------------------------------------------------------------------------------------------


def test_a_state_directory_that_others_may_enter(clinic: Clinic) -> None:
    clinic.state.run.chmod(0o755)
    only(clinic, "state directory", f"chmod 700 {clinic.state.run}")


def test_a_state_directory_that_cannot_be(clinic: Clinic, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    clinic.state = StateDir(tmp_path / "file" / "state")
    only(clinic, "state directory", "--state-dir")


def test_a_pidfile_of_a_process_that_is_gone(clinic: Clinic) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (clinic.state.run / "web.pid").write_text(f"{gone.pid} 1 nowhere\n")
    only(clinic, "pidfiles", "web.pid", str(gone.pid))


def test_a_monitor_that_everybody_may_reach(clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "opsq.toml").write_text('[monitor]\naddress = "0.0.0.0"\n')
    only(clinic, "monitor", "0.0.0.0", "OPSQ_MONITOR_BASIC_AUTH")
    monkeypatch.setenv("OPSQ_MONITOR_BASIC_AUTH", "user:password")
    assert not clinic.ailing()


# -- the command -----------------------------------------------------------------------------------------------------


def doctor(clinic: Clinic, *words: str) -> subprocess.CompletedProcess[str]:
    told = {"OPSQ_BROKER_URL": clinic.url, "OPSQ_STATE_DIR": str(clinic.state.root)}
    line = [sys.executable, "-m", "opsq", "doctor", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, env={**os.environ, **told})


def test_the_command_lists_what_was_looked_at_and_ends_with_0(clinic: Clinic) -> None:
    found = doctor(clinic)
    assert (found.returncode, found.stderr) == (0, "")
    assert [line.split(":")[0] for line in found.stdout.splitlines()] == [f"ok    {name}" for name in ALL]


def test_the_command_says_what_why_and_what_mends_it_and_ends_with_1(clinic: Clinic, client: redis.Redis) -> None:
    client.set(keys.paused("celery"), "1")
    found = doctor(clinic)
    assert found.returncode == 1
    assert found.stdout.splitlines()[:3] == [
        "BAD   paused queues: the queue 'celery' is paused",
        "      why:    nothing is taken from it",
        "      mend:   opsq queues resume celery",
    ]
    told = json.loads(doctor(clinic, "--json").stdout)
    assert told["healthy"] is False
    assert [check["check"] for check in told["checks"] if check["findings"]] == ["paused queues"]


def test_without_a_broker_the_rest_is_looked_at_and_it_ends_with_3(clinic: Clinic) -> None:
    clinic.url = f"redis://127.0.0.1:{redis_server.free_port()}/0"
    found = doctor(clinic)
    assert found.returncode == 3
    assert found.stdout.startswith("BAD   broker: cannot reach Redis at 127.0.0.1:")
    assert "ok    pidfiles" in found.stdout
    assert "Traceback" not in found.stderr


def test_a_broker_that_refuses_the_login_is_a_finding_and_it_ends_with_4(
    clinic: Clinic, redis_client: redis.Redis
) -> None:
    redis_client.config_set("requirepass", "secret")
    try:
        clinic.url = clinic.url.replace("redis://", "redis://:wrong@")
        found = doctor(clinic)
    finally:
        redis_client.config_set("requirepass", "")
    assert found.returncode == 4
    assert found.stdout.startswith("BAD   broker: Redis at ")
    assert "ok    pidfiles" in found.stdout
    assert "secret" not in found.stdout + found.stderr
    assert "wrong" not in found.stdout + found.stderr
