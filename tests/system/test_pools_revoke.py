"""Terminating a task in a process that runs many: it ends, its neighbours go on, and nothing is killed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
from support import lab as labs
from support.lab import Lab

POOLS = ("threads", "asyncio", "gevent", "eventlet")

TASKS = """
import asyncio

from opsq import signals
from opsq.exceptions import SoftTimeLimitExceeded


@signals.task_revoked.connect
def told(sender=None, request=None, terminated=None, signum=None, expired=None, **_):
    mark("revoked", f"{request.id} {terminated} {signum} {expired}")


@app.task(acks_late=True)
def spin(text, path):
    mark("begin", text)
    try:
        while not os.path.exists(path):
            time.sleep(0.01)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "went on"


@app.task(acks_late=True)
async def async_spin(text, path):
    mark("begin", text)
    try:
        while not os.path.exists(path):
            await asyncio.sleep(0.01)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "went on"
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
    worker = lab.worker("-P", pool, "-c", "20", "-n", f"{pool}@%h", name=pool)
    yield pool
    assert worker.stop() == 0, worker.report()


def test_a_task_is_ended_among_its_neighbours(lab: Lab, pool: str) -> None:
    task, path = "async_spin" if pool == "asyncio" else "spin", lab.folder / f"go-{pool}"
    ids = {name: lab.send(task, f"{pool} {name}", str(path)) for name in ("one", "two", "three", "four", "soft")}
    for name in ids:
        begun = lab.wait_mark("begin", f"{pool} {name}")
    replies = lab.app.control.terminate([ids["one"], ids["two"]], reply=True, limit=1, timeout=10)
    (told,) = replies[0].values()
    assert {*told["ok"].removeprefix("terminate: ").split(", ")} == {ids["one"], ids["two"]}
    for name in ("one", "two"):
        assert lab.result(ids[name], "REVOKED")["result"]["exc_message"] == ["terminated"]
        lab.wait_mark("revoked", f"{ids[name]} True 15 False")
    lab.app.control.terminate(ids["soft"], signal="USR1")
    assert lab.value(ids["soft"]) == "cleaned up"
    path.touch()
    assert [lab.value(ids[name]) for name in ("three", "four")] == ["went on"] * 2
    assert {mark.pid for mark in lab.written("begin") if mark.text.startswith(pool)} == {begun.pid}
    assert len([mark for mark in lab.written("begin") if mark.text.startswith(pool)]) == 5
    assert not lab.dead()
