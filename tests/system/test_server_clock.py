"""The clock of the Redis server leaps: leases go by it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support import redis_server, worker_project
from support.processes import Spawner
from support.redis_server import RedisServer
from support.worker_project import Project
from support.world import World, compiler

from opsq import App

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C compiler")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


@pytest.fixture
def server(world: World) -> Iterator[RedisServer]:
    """A server of its own, whose clock the test sets."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in world.environment.items():
            patch.setenv(name, value)
        stack = ExitStack()
        server = stack.enter_context(redis_server.running())
    with stack:
        yield server


def test_leases_are_renewed_twice_when_the_servers_clock_has_leapt(
    tmp_path: Path, spawn: Spawner, server: RedisServer, world: World, wait_for: Callable[..., Any]
) -> None:
    """The first renewal was reckoned by the clock as it had been; the next one by itself comes after 40 s."""
    project = Project(worker_project.write(tmp_path), spawn, server.url())
    worker = project.worker("-c", "1", "--lease", "120")
    client = server.client()

    def left_s() -> float:
        seconds, micros = client.time()
        ((_name, end),) = client.zrange("opsq:consumers:{celery}", 0, -1, withscores=True)
        return float(end) / 1000 - int(seconds) - int(micros) / 1e6

    assert 60 < left_s() <= 121
    control = App("client", broker=server.url(), set_as_current=False).control
    for offset_s in (3600.0, 0.0):
        world.set_clock(offset_s)
        assert not 60 < left_s() <= 121
        control.rate_limit("proj.add", "100/s")  # it renews at once
        wait_for(lambda: 60 < left_s() <= 121, 20, "the lease ends in time by the server's clock")
    assert worker.stop() == 0


def test_who_lives_is_not_taken_for_gone_when_the_servers_clock_leaps_back(
    tmp_path: Path, spawn: Spawner, server: RedisServer, world: World
) -> None:
    """Whoever renews last still reckons by the clock as it was, by which the others' new leases have run out."""
    world.set_clock(3600.0)
    project = Project(worker_project.write(tmp_path), spawn, server.url())
    for name in ("one", "two", "three"):
        project.worker("-c", "1", "--lease", "1.5", "-n", f"{name}@h", OPSQ_STATE_DIR=str(tmp_path / name))
    client = server.client()
    names = set(client.zrange("opsq:workers", 0, -1))
    assert len(names) == 3
    time.sleep(2.0)  # nobody takes over within a lease of its own connect
    with client.monitor() as monitor:
        world.set_clock(0.0)
        renewed, removed = 0, []
        for told in monitor.listen():
            renewed += told["command"].startswith("SET opsq:worker:")
            removed += [told["command"]] * told["command"].startswith("ZREM opsq:workers")
            if renewed == 12:
                break
    assert not removed
    assert set(client.zrange("opsq:workers", 0, -1)) == names
