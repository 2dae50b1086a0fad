"""Chains, groups and chords on the pools that run many tasks in one process, also when parts are ended from outside."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
from support import lab as labs
from support.lab import Lab

from opsq import chain, chord, group
from opsq.exceptions import TaskRevokedError, TimeLimitExceeded

POOLS = ("threads", "asyncio", "gevent", "eventlet")

TASKS = """
import asyncio

from opsq import chord, group


@app.task
def total(values):
    return sum(values)


@app.task
async def async_add(x, y):
    await asyncio.sleep(0.01)
    return x + y


@app.task
def waits(text):
    mark("begin", text)
    while True:
        time.sleep(0.01)


@app.task
async def async_waits(text):
    mark("begin", text)
    while True:
        await asyncio.sleep(0.01)


@app.task
def note_error(request, error, traceback):
    mark("errback", request.id)


@app.task
def spread(count):
    return chord([add.s(number, 1) for number in range(count)], total.s()).delay().id


@app.task(bind=True)
def become(self, count):
    raise self.replace(group(add.s(number, 1) for number in range(count)) | total.s())
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        yield lab


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest, lab: Lab) -> Iterator[str]:
    pool: str = request.param
    if pool in ("gevent", "eventlet") and importlib.util.find_spec(pool) is None:
        pytest.skip(f"{pool} is not installed")
    worker = lab.worker("-P", pool, "-c", "30", name=f"{pool}-{labs.new_id()[:8]}")
    yield pool
    assert worker.stop() == 0, worker.report()


def call(lab: Lab, name: str, *args: Any, **options: Any) -> Any:
    return lab.app.signature(f"proj.{name}", args, **options)


def chord_error(lab: Lab, task_id: str) -> str:
    """What the body of a chord says of the part that has failed."""
    error = lab.result(task_id, "FAILURE", 30)["result"]
    assert error["exc_type"] == "ChordError"
    return str(error["exc_message"])


def test_what_follows_a_task_follows_it(lab: Lab, pool: str) -> None:
    adds = ["async_add" if pool == "asyncio" and number % 2 else "add" for number in range(60)]
    parts = [call(lab, name, number, 1) for number, name in enumerate(adds)]
    joined = chord(parts)(call(lab, "total"))
    spread = chain(call(lab, "add", 1, 2), group(call(lab, "add", n) for n in range(60)), call(lab, "total"))()
    steps = chain(call(lab, "add", 1, 2), call(lab, "add", 3), call(lab, "async_add", 4)).apply_async()
    assert joined.get(timeout=30) == sum(number + 1 for number in range(60))
    assert spread.get(timeout=30) == sum(number + 3 for number in range(60))
    assert steps.get(timeout=30) == 10
    assert lab.app.AsyncResult(lab.run("spread", 20)).get(timeout=30) == 210
    assert lab.run("become", 20) == 210


def test_a_chord_whose_part_is_ended_from_outside_tells_its_body_and_leaves_the_others(lab: Lab, pool: str) -> None:
    waits = "async_waits" if pool == "asyncio" else "waits"
    limited = call(lab, waits, f"{pool} limited").set(time_limit=0.3)
    body = call(lab, "total").on_error(call(lab, "note_error"))
    first = chord([call(lab, "add", 1, 1), limited])(body)
    assert "TimeLimitExceeded" in chord_error(lab, first.id)
    lab.wait_mark("errback", first.id)

    revoked = call(lab, waits, f"{pool} revoked").set(task_id=labs.new_id())
    second = chord([call(lab, "add", 1, 1), revoked])(body)
    lab.wait_mark("begin", f"{pool} revoked")
    lab.app.control.revoke(revoked.options["task_id"], terminate=True)
    assert "terminated" in chord_error(lab, second.id)
    lab.wait_mark("errback", second.id)
    assert lab.run("add", 1, 2) == 3


def test_what_was_revoked_before_it_began_does_not_run(lab: Lab, pool: str) -> None:
    waits = "async_waits" if pool == "asyncio" else "waits"
    names = [f"{pool} full {number}" for number in range(30)]
    full = [lab.app.send_task(f"proj.{waits}", (name,), time_limit=20) for name in names]
    for name in names:
        lab.wait_mark("begin", name)
    behind = lab.app.send_task("proj.add", (1, 1))
    lab.app.control.revoke(behind.id)
    lab.app.control.revoke([each.id for each in full], terminate=True)
    for each in [*full, behind]:
        with pytest.raises(TaskRevokedError):
            each.get(timeout=30)
    assert not lab.dead()


def test_soft_and_hard_limits_of_a_call_hold_in_a_crowd(lab: Lab, pool: str) -> None:
    waits = "async_waits" if pool == "asyncio" else "waits"
    hard = [lab.app.send_task(f"proj.{waits}", ("x",), time_limit=0.2 + number / 50) for number in range(15)]
    for each in hard:
        with pytest.raises(TimeLimitExceeded):
            each.get(timeout=30)
    assert lab.run("add", 1, 2) == 3
