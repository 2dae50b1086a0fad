"""Pools that run many tasks in one process: threads, asyncio, gevent, eventlet."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from support import lab as labs
from support.lab import Lab
from support.processes import Running
from support.worker_project import children_of

from opsq.concurrency.base import pool_named
from opsq.runtime.statedir import StateDir
from opsq.worker import slots
from opsq.worker.slots import Slots

POOLS = ("threads", "asyncio", "gevent", "eventlet")
#: What sleeps without keeping the others from it.
SLEEPER = {"threads": "nap", "asyncio": "async_nap", "gevent": "nap", "eventlet": "nap"}

TASKS = """
import asyncio
import contextvars
import threading

from opsq import current_task
from opsq.exceptions import SoftTimeLimitExceeded
from opsq.signals import worker_process_init

STATE = threading.local()
VALUE = contextvars.ContextVar("value", default="nobody")


while os.path.exists(os.environ["MARKS"] + "-closed"):
    time.sleep(0.01)


@worker_process_init.connect
def child_begins(**_):
    mark("init")


@app.task
async def async_nap(text, seconds=0.0):
    mark("begin", text)
    await asyncio.sleep(seconds)
    mark("end", text)
    return os.getpid()


@app.task
def kept(text):
    mark("begin", text)
    while os.path.exists(os.environ["MARKS"] + "-kept"):
        time.sleep(0.01)
    mark("end", text)


@app.task
async def async_kept(text):
    mark("begin", text)
    while os.path.exists(os.environ["MARKS"] + "-kept"):
        await asyncio.sleep(0.01)
    mark("end", text)


@app.task(bind=True)
async def who(self, text):
    VALUE.set(text)
    await asyncio.sleep(0.05)
    assert self.request.id == current_task.request.id
    assert asyncio.current_task() is not None
    return [self.request.id, current_task.name, VALUE.get()]


@app.task(bind=True)
def who_sync(self, text):
    VALUE.set(text)
    time.sleep(0.05)
    return [self.request.id, current_task.name, VALUE.get()]


@app.task(soft_time_limit=0.2)
def soft(text):
    try:
        while True:
            time.sleep(0.01)
    except SoftTimeLimitExceeded:
        mark("soft", text)
        return "cleaned up"


@app.task(soft_time_limit=0.2)
async def async_soft(text):
    try:
        await asyncio.sleep(30)
    except SoftTimeLimitExceeded:
        mark("soft", text)
        return "cleaned up"


@app.task(time_limit=0.2)
def hard(text):
    try:
        while True:
            time.sleep(0.01)
    except Exception:
        return "not ended"


@app.task(time_limit=0.2)
async def async_hard(text):
    try:
        await asyncio.sleep(30)
    finally:
        mark("cancelled", text)


@app.task(time_limit=0.2)
def stuck():
    time.sleep(60)


@app.task(acks_late=True)
def late(text, seconds=0.0):
    mark("begin", text)
    time.sleep(seconds)
    mark("end", text)


@app.task(acks_late=True)
async def async_late(text, seconds=0.0):
    mark("begin", text)
    await asyncio.sleep(seconds)
    mark("end", text)


@app.task(bind=True, max_retries=2, default_retry_delay=0.01)
def flaky(self):
    if self.request.retries < 2:
        raise self.retry()
    return self.request.retries


@app.task(autoretry_for=(ValueError,), retry_kwargs={"countdown": 0.01}, bind=True)
async def async_flaky(self):
    if self.request.retries < 2:
        raise ValueError("again")
    return self.request.retries


@app.task
def get_inside(x):
    return add.delay(x, 1).get(timeout=10, disable_sync_subtasks=False)


@app.task(bind=True, track_started=True)
def progress(self, text):
    self.update_state(state="PROGRESS", meta={"done": 1})
    mark("told", text)
    time.sleep(0.5)


@app.task
def complain(text):
    raise KeyError(text)


@app.task
async def async_complain(text):
    await asyncio.sleep(0)
    raise KeyError(text)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS, "pools") as lab:
        yield lab


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name in ("gevent", "eventlet") and importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture
def worker(lab: Lab, pool: str) -> Iterator[Running]:
    running = start(lab, pool)
    yield running
    assert running.stop() == 0, running.report()


def start(lab: Lab, pool: str, size: int = 1000, *options: str) -> Running:
    return lab.worker("-P", pool, "-c", str(size), *options, name=f"{pool}-{labs.new_id()[:8]}")


def begun(lab: Lab, texts: set[str]) -> set[str]:
    return {mark.text for mark in lab.written("begin")} & texts


def new_texts(count: int) -> list[str]:
    prefix = labs.new_id()[:8]
    return [f"{prefix}-{number}" for number in range(count)]


def two_calls(first: str, second: str, texts: tuple[str, str], dice: random.Random) -> list[tuple[str, str, float]]:
    """A call of each task; most are short."""
    return [(task, text, dice.choice((0.0, 0.0, 0.01, 0.3))) for task, text in zip((first, second), texts, strict=True)]


def body_of(letter: dict[str, Any]) -> Any:
    """The arguments in a dead letter."""
    return json.loads(base64.b64decode(json.loads(letter["message"])["body"]))


def child_of(lab: Lab) -> int:
    """The one child of the one worker that runs."""
    return lab.written("init")[-1].pid


@pytest.mark.usefixtures("worker")
def test_a_thousand_sleeping_tasks_run_at_once_in_one_process(lab: Lab, pool: str) -> None:
    texts = new_texts(1000)
    short = [("add", n, n) for n in range(1500)]  # after these many are taken together
    lab.push("celery", *short, *[(SLEEPER[pool], text, 3) for text in texts])
    lab.wait_for(lambda: len(begun(lab, set(texts))) == 1000, "all have begun", 30)
    lab.wait_for(lambda: len({m.text for m in lab.written("end")} & set(texts)) == 1000, "all have ended", 30)
    marks = [mark for mark in lab.written() if mark.text in set(texts)]
    assert len({mark.pid for mark in marks}) == 1
    at_once = most = 0
    for mark in marks:
        at_once += 1 if mark.what == "begin" else -1
        most = max(most, at_once)
    assert most == 1000
    lab.wait_for(lab.is_quiet, "all is settled")


@pytest.mark.usefixtures("worker")
def test_short_tasks_are_many_in_a_row_without_more_runners(lab: Lab) -> None:
    lab.push("celery", *[("add", n, n) for n in range(3000)])
    lab.wait_for(lab.is_quiet, "all have run", 30)
    threads = os.listdir(f"/proc/{child_of(lab)}/task")
    assert len(threads) < 100  # a few more may come on a machine that is too busy to run the first one


@pytest.mark.usefixtures("worker")
def test_all_kinds_of_tasks_know_who_they_are(lab: Lab) -> None:
    for task in ("who", "who_sync"):
        sent = {lab.send(task, f"{task}-{n}"): f"{task}-{n}" for n in range(20)}
        for task_id, text in sent.items():
            assert lab.value(task_id) == [task_id, f"proj.{task}", text]


@pytest.mark.usefixtures("worker")
def test_retries_waiting_and_progress_work(lab: Lab) -> None:
    flaky = [lab.send("flaky"), lab.send("async_flaky")]
    asking = lab.send("get_inside", 4)
    told = lab.send("progress", "p")
    lab.wait_for(lambda: lab.state(told) == "PROGRESS", "the state is there while it runs")
    assert [lab.value(task_id) for task_id in flaky] == [2, 2]
    assert lab.value(asking) == 5
    lab.result(told)


@pytest.mark.usefixtures("worker")
def test_an_error_of_a_task_is_its_result(lab: Lab) -> None:
    for task in ("complain", "async_complain"):
        record = lab.result(lab.send(task, "x"), "FAILURE")
        assert record["result"]["exc_type"] == "KeyError"
        assert f"in {task}" in record["traceback"]


@pytest.mark.usefixtures("worker")
def test_the_soft_limit_is_raised_in_the_task(lab: Lab) -> None:
    for task in ("soft", "async_soft"):
        text = labs.new_id()
        assert lab.run(task, text) == "cleaned up"
        lab.wait_mark("soft", text)
    assert lab.run("add", 1, 2) == 3


@pytest.mark.usefixtures("worker")
def test_the_hard_limit_ends_one_task_and_no_other(lab: Lab, pool: str) -> None:
    text = labs.new_id()
    neighbour = lab.send(SLEEPER[pool], text, 1.0)
    for task in ("hard", "async_hard"):
        record = lab.result(lab.send(task, text), "FAILURE")
        assert record["result"]["exc_type"] == "TimeLimitExceeded"
    lab.wait_mark("cancelled", text)
    assert lab.value(neighbour) == child_of(lab)
    assert lab.run("add", 1, 2) == 3


@pytest.mark.usefixtures("worker")
def test_a_child_that_is_killed_loses_nothing(lab: Lab, pool: str) -> None:
    early, late = new_texts(30), new_texts(30)
    sleeper = SLEEPER[pool]
    lab.push("celery", *[(sleeper, text, 30) for text in early])
    lab.push("celery", *[("async_late" if pool == "asyncio" else "late", text, 0.4) for text in late])
    lab.wait_for(lambda: len(begun(lab, set(early + late))) == 60, "all have begun")
    os.kill(child_of(lab), signal.SIGKILL)
    lab.wait_for(lambda: {m.text for m in lab.written("end")} >= set(late), "those that acknowledge late ran again", 20)
    lab.wait_for(lab.is_quiet, "all is settled")
    assert not {mark.text for mark in lab.written("end")} & set(early)
    assert len([letter for letter in lab.dead().values() if "killed by SIGKILL" in letter["reason"]]) >= 30
    lab.redis.delete("opsq:dead:{celery}", "opsq:dead-index:{celery}")


def test_a_warm_stop_lets_end_what_runs_and_gives_back_the_rest(lab: Lab, pool: str) -> None:
    """What runs ends only when the stop has reached the children: however slow the machine, no place is free before."""
    running = start(lab, pool, 5)
    texts, gate = new_texts(12), lab.folder / "marks-kept"
    gate.touch()
    lab.push("celery", *[("async_kept" if pool == "asyncio" else "kept", text) for text in texts])
    lab.wait_for(lambda: len(begun(lab, set(texts))) == 5, "five have begun", 30)
    running.send(signal.SIGTERM)
    lab.wait_for(lambda: is_told_to_stop(lab, running), "the children are told", 30)
    gate.unlink()
    assert running.wait() == 0
    assert {mark.text for mark in lab.written("end")} & set(texts) == begun(lab, set(texts)), running.report()
    assert len(begun(lab, set(texts))) == 5, running.report()
    assert lab.depth() == 7
    assert lab.in_flight() == 0
    lab.redis.delete("celery")


def is_told_to_stop(lab: Lab, running: Running) -> bool:
    """Whether the page that the children of a worker read says so."""
    pages = [Slots.attach(path) for path in StateDir(lab.spawn.folder / "state").slots.glob("*")]
    return any(running.pid in page.facts.parent and page.words[slots.STOPPING] for page in pages)


def test_nothing_waits_in_a_worker_that_is_full(lab: Lab, pool: str) -> None:
    full = start(lab, pool, 4)
    blockers, texts = new_texts(4), new_texts(40)
    lab.push("celery", *[(SLEEPER[pool], text, 2) for text in blockers])
    lab.wait_for(lambda: len(begun(lab, set(blockers))) == 4, "it is full")
    lab.push("celery", *[("add", n, 1) for n in range(40)])
    lab.wait_for(lambda: lab.depth() == 40, "all are in the queue")
    other = start(lab, pool, 4)
    lab.wait_for(lambda: lab.depth() == 0, "another one takes them")
    assert len(begun(lab, set(texts))) == 0
    assert other.stop() == 0
    assert full.stop() == 0


def test_a_child_that_has_run_its_number_of_tasks_is_replaced(lab: Lab, pool: str) -> None:
    running = start(lab, pool, 3, "--max-tasks-per-child", "3")
    pids = [lab.run("nap", text, 0.0) for text in new_texts(5)]
    assert len(set(pids)) == 2
    assert running.stop() == 0


def test_workers_tell_the_pool_and_its_size(lab: Lab, pool: str) -> None:
    running = start(lab, pool, 7)
    texts = new_texts(3)
    lab.push("celery", *[(SLEEPER[pool], text, 1) for text in texts])
    assert f"7 ({pool})" in running.output()
    assert running.stop() == 0


def test_nothing_is_lost_or_run_twice_however_often_the_processes_are_killed(lab: Lab, pool: str) -> None:
    """Kills of the child and of the whole group at random instants while short and longer tasks run."""
    early, late = new_texts(250), new_texts(250)
    slow = "late" if pool != "asyncio" else "async_late"
    before = set(lab.dead())
    dice = random.Random(pool)
    calls = [call for both in zip(early, late, strict=True) for call in two_calls(SLEEPER[pool], slow, both, dice)]
    lab.push("celery", *calls)
    running = start(lab, pool, 50)
    for kill in range(4):  # fewer than a message may be lost with its process
        seen = len(lab.written("begin"))
        lab.wait_for(lambda seen=seen: len(lab.written("begin")) > seen or lab.is_quiet(), "it works on", 30)
        time.sleep(dice.uniform(0, 0.15))
        if kill % 3 == 2:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            running = start(lab, pool, 50)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child_of(lab), signal.SIGKILL)
    lab.wait_for(lambda: {mark.text for mark in lab.written("end")} >= set(late), "late ones have had their effect", 40)
    lab.wait_for(lab.is_quiet, "all is settled")
    assert running.stop() == 0
    begins = Counter(mark.text for mark in lab.written("begin"))
    ends = {mark.text for mark in lab.written("end")}
    assert max(begins[text] for text in early) == 1
    assert lab.is_quiet()
    buried = {body_of(letter)[0][0] for key, letter in lab.dead().items() if key not in before}
    assert buried >= {text for text in early if text not in ends}
    # What was killed between its effect and its end counts as started; what had not begun never does.
    assert len(buried & ends) < 12
    assert len(buried - begins.keys()) < 12
    lab.redis.delete("opsq:dead:{celery}", "opsq:dead-index:{celery}")


@pytest.mark.parametrize("pool", [name for name in POOLS if name in ("gevent", "eventlet")], indirect=True)
def test_a_child_that_still_imports_the_app_ends_with_the_process_that_started_it(lab: Lab, pool: str) -> None:
    """Else it would work on beside the one that takes its place, under the same name."""
    running = start(lab, pool, 5)
    gate = lab.folder / "marks-closed"
    gate.touch()
    os.kill(child_of(lab), signal.SIGKILL)
    orphan = lab.wait_for(lambda: importing(running), "the next child imports the app", 30)
    (template,) = psutil.Process(running.pid).children()
    template.kill()
    psutil.wait_procs([orphan], timeout=30)
    assert not orphan.is_running()
    gate.unlink()
    assert lab.value(lab.send("add", 1, 2), timeout=30) == 3
    assert running.stop() == 0


def importing(running: Running) -> psutil.Process | None:
    """A child of a green pool that has been started by exec."""
    with contextlib.suppress(psutil.Error):
        return next((each for each in children_of(running) if "opsq.concurrency.patched" in each.cmdline()), None)
    return None


def test_a_thread_that_does_not_react_to_its_hard_limit_is_killed_after_its_neighbours(lab: Lab) -> None:
    running = start(lab, "threads", 4)
    text = labs.new_id()
    neighbour, stuck = lab.send("nap", text, 2.0), lab.send("stuck")
    record = lab.result(stuck, "FAILURE", 20)
    assert record["result"]["exc_type"] == "TimeLimitExceeded"
    assert lab.state(neighbour) == "SUCCESS"
    assert lab.run("add", 1, 2) == 3
    assert running.stop() == 0


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_coroutines_run_to_their_end_where_one_task_runs_at_a_time(lab: Lab, pool: str) -> None:
    running = start(lab, pool, 1)
    task_id = lab.send("who", "x")
    assert lab.value(task_id) == [task_id, "proj.who", "x"]
    assert lab.run("async_soft", "y") == "cleaned up"
    assert lab.run("async_flaky") == 2
    assert running.stop() == 0


def test_a_pool_that_does_not_exist_is_refused_with_those_that_do(lab: Lab) -> None:
    running = lab.worker("-P", "fibers", ready=False)
    assert running.wait() != 0
    assert (
        "there is no pool 'fibers': the pools are prefork, solo, threads, asyncio, gevent, eventlet" in running.output()
    )
    assert "Traceback" not in running.output()


@pytest.mark.parametrize(
    ("name", "pool"), [("processes", "prefork"), ("aio", "asyncio"), ("celery.concurrency.gevent:TaskPool", "gevent")]
)
def test_other_names_of_pools_are_understood(name: str, pool: str) -> None:
    assert pool_named(name).name == pool
