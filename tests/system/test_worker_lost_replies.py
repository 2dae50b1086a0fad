"""Answers that are lost, and turns that arrive late: found within a second, nothing lost, nothing run twice."""

from __future__ import annotations

import glob
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import redis
from support.proxy import CutAfterForward, HoldUntilCompared, Proxy
from support.worker_project import Project, all_done

from opsq.broker.consumer import Consumer
from opsq.broker.settlement import Settlement
from opsq.protocol import writing

STRIKES = 200
LONGEST_REST_S = 1.0
#: Renewals, which would find what answers do not show, are rare (seconds).
LEASE = ("--lease", "300")
#: Two looks that are further apart: the machine as a whole stood still (seconds).
STANDSTILL_S = 0.1
#: How often it is looked which processes there are (seconds).
PROCESSES_S = 0.5


@pytest.fixture
def behind(project: Project) -> Iterator[Callable[[type[Proxy]], Proxy]]:
    """`behind(Kind)` puts a proxy between the project's worker and Redis."""
    made: list[Proxy] = []

    def build(kind: type[Proxy], user: str = "") -> Proxy:
        parts = urlsplit(project.url)
        made.append(kind(parts.port or 6379, STRIKES))
        project.url = f"redis://{user}127.0.0.1:{made[-1].port}{parts.path}"
        return made[-1]

    yield build
    for proxy in made:
        proxy.close()


class Rest:
    """How long the messages in flight have rested, at the longest.

    By a clock that stands still while one of those concerned waits for a processor, or all of them do: how busy the
    machine is says nothing about how soon something is found.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.since: dict[tuple[bytes, bytes], float] = {}
        self.longest_s = 0.0
        self._server = psutil.Process(client.info("server")["process_id"])
        self._concerned: list[psutil.Process] = []
        self._looked_at = 0.0
        self._waited: dict[str, float] = {}
        self._clock, self._at, self._waited_s = 0.0, time.monotonic(), self._waited_in_all()

    def look(self) -> None:
        now, there = self._now(), set()
        for store in self.client.scan_iter("opsq:inflight:*"):
            there |= {(store, number) for number in self.client.hkeys(store)}
        self.since = {each: self.since.get(each, now) for each in there}
        self.longest_s = max([self.longest_s, *(now - since for since in self.since.values())])

    def _now(self) -> float:
        at, waited_s = time.monotonic(), self._waited_in_all()
        self._clock += min(max(at - self._at - (waited_s - self._waited_s), 0), STANDSTILL_S)
        self._at, self._waited_s = at, waited_s
        return self._clock

    def _waited_in_all(self) -> float:
        """How long the threads of the test, its workers and its server were ready to run and did not (seconds)."""
        if time.monotonic() - self._looked_at > PROCESSES_S:
            me, self._looked_at = psutil.Process(), time.monotonic()
            self._concerned = [me, self._server, *me.children(recursive=True)]
        for each in self._concerned:
            for path in glob.glob(f"/proc/{each.pid}/task/*/schedstat"):
                with suppress(OSError):  # it has ended meanwhile
                    self._waited[path] = int(Path(path).read_text().split()[1]) / 1e9
        return sum(self._waited.values())


def send(client: redis.Redis, number: int) -> None:
    raw = writing.build(task="proj.early", id=f"id-{number}", args=[number], kwargs={}, queue="celery")
    client.lpush("celery", raw)


def strike_all(proxy: Proxy, project: Project, client: redis.Redis, wait_for: Callable[..., object]) -> None:
    """Send tasks, a few at a time, until the proxy has struck as often as it may; then everything must be done once."""
    rest, sent = Rest(client), 0
    until = time.monotonic() + 80
    while proxy.strikes < proxy.limit:
        assert time.monotonic() < until, f"{proxy.strikes} strikes, {sent} sent"
        if client.llen("celery") < 3:
            for _ in range(sent % 4 + 1):
                send(client, sent)
                sent += 1
        rest.look()
        time.sleep(0.001)
    until = time.monotonic() + 10
    while not all_done(client) and time.monotonic() < until:
        rest.look()
        time.sleep(0.001)
    wait_for(lambda: len(project.effects()) == sent, what=f"all of {sent} have run")
    assert set(project.effects().values()) == {1}, "none runs twice"
    assert client.hlen("opsq:dead:{celery}") == 0
    assert rest.longest_s < LONGEST_REST_S


def test_lost_answers_are_found(behind, project, redis_client, wait_for) -> None:
    proxy = behind(CutAfterForward)
    worker = project.worker("-c", "2", "-l", "error", *LEASE, ready=False)
    strike_all(proxy, project, redis_client, wait_for)
    assert worker.stop() == 0


def test_late_turns_do_no_harm(behind, project, redis_client, wait_for) -> None:
    proxy = behind(HoldUntilCompared)
    worker = project.worker("-c", "2", "-l", "error", *LEASE, ready=False)
    strike_all(proxy, project, redis_client, wait_for)
    assert worker.stop() == 0


def test_late_turns_are_found_where_connections_may_not_be_closed(behind, project, redis_client, wait_for) -> None:
    """Without the right to CLIENT KILL a late turn is carried out: the count in the next answer shows it."""
    redis_client.execute_command("ACL", "SETUSER", "plain", "on", ">pw", "~*", "&*", "+@all", "-client|kill")
    proxy = behind(HoldUntilCompared, "plain:pw@")
    try:
        worker = project.worker("-c", "1", "-l", "error", *LEASE, ready=False)
        strike_all(proxy, project, redis_client, wait_for)
        assert worker.stop() == 0
    finally:
        redis_client.execute_command("ACL", "DELUSER", "plain")


def test_a_late_turn_of_a_killed_child_finds_none_of_its_successors_messages(project, redis_client, wait_for) -> None:
    """It comes in the same consumer's name; what it says it has settled are numbers that nobody has any more."""
    raw = writing.build(task="proj.late", id="id-1", args=[1, 60.0], kwargs={}, queue="celery")
    redis_client.lpush("celery", raw)
    project.worker("-c", "1", "-l", "error", ready=False)
    numbers: dict[bytes, list[bytes]] = {}
    killed: set[int] = set()
    while True:
        # A child that was killed is followed by one with another name, until its own is free again.
        [pid] = wait_for(lambda: project.running_now() - killed, what="a child runs the message")
        [(store, number)] = held(redis_client).items()
        if store in numbers:
            break
        numbers[store] = number
        killed.add(pid)
        os.kill(pid, signal.SIGKILL)
    late = Consumer(project.url, ["celery"], store.decode().rpartition("}:")[2])
    assert late.stores == [store.decode()]
    late.connect()
    late.turn_only([Settlement(0, int(each)) for each in numbers[store]])
    late.close()
    assert held(redis_client) == {store: number}


def held(client: redis.Redis) -> dict[bytes, list[bytes]]:
    """Each store of messages in flight, with their numbers."""
    return {store: client.hkeys(store) for store in client.scan_iter("opsq:inflight:*")}
