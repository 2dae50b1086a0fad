"""The clock of the Redis server leaps: leases go by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
        opened = redis_server.running()
        server = opened.__enter__()
    try:
        yield server
    finally:
        opened.__exit__(None, None, None)


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
