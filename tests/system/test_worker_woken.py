"""A waiter that is woken and finds nothing lets others go first: many waiters run for few messages."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from support.worker_project import Project

from opsq.protocol import writing

#: On the average a waiter lets half of 50 ms pass; so often in a second it never looks then.
LOOKS_PER_S = 80


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_who_is_woken_in_vain_again_and_again_looks_seldom(
    project: Project, redis_client: redis.Redis, pool: str
) -> None:
    worker = project.worker("-P", pool, "-c", "2", "--lease", "60")
    before, begin, pokes = looks(redis_client), time.monotonic(), 0
    while time.monotonic() - begin < 1.5:
        redis_client.pipeline(transaction=True).lpush("celery", b"taken by somebody").rpop("celery").execute()
        pokes += 1
    most = 40 + LOOKS_PER_S * (time.monotonic() - begin)
    assert 5 < looks(redis_client) - before < most, f"woken {pokes} times"
    assert worker.stop() == 0


def test_who_runs_something_and_is_woken_in_vain_looks_and_takes_few_turns(
    project: Project, redis_client: redis.Redis, wait_for: Callable[..., Any]
) -> None:
    worker = project.worker("-P", "threads", "-c", "2", "--lease", "60")
    redis_client.lpush("celery", writing.build(task="proj.late", id="long", args=[1, 5], kwargs={}, queue="celery"))
    wait_for(lambda: project.marks(), 20, "it runs one")
    before, begin = turns(redis_client), time.monotonic()
    while time.monotonic() - begin < 1.5:
        redis_client.pipeline(transaction=True).lpush("celery", b"taken by somebody").rpop("celery").execute()
    assert turns(redis_client) - before < 10
    wait_for(project.effects, 20, "the long one has ended")
    assert worker.stop() == 0


def turns(client: redis.Redis) -> int:
    """How many scripts were called."""
    called: int = client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
    return called


def looks(client: redis.Redis) -> int:
    """How often it was asked whether anything waits."""
    called: int = client.info("commandstats").get("cmdstat_exists", {}).get("calls", 0)
    return called
