"""Limits of time, tasks and memory: what is over its limit ends, and nothing else does."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support import lab as labs
from support.lab import Lab

from opsq.runtime import process
from opsq.worker import slots
from opsq.worker.children import Child, Children, Template
from opsq.worker.slots import Facts, Slots

TASKS = """
import ctypes

from opsq.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded


@app.task(soft_time_limit=0.15)
def soft(text):
    mark("begin", text)
    try:
        time.sleep(30)
    except SoftTimeLimitExceeded:
        mark("cleanup", text)
        return "cleaned up"


@app.task(soft_time_limit=0.15)
def soft_uncaught():
    while True:
        time.sleep(0.01)


@app.task(soft_time_limit=0.15, time_limit=0.5)
def soft_ignored(text):
    mark("begin", text)
    while True:
        try:
            while True:
                time.sleep(30)
        except SoftTimeLimitExceeded:
            mark("ignored", text)


@app.task(time_limit=0.2)
def hard(text=""):
    mark("begin", text)
    time.sleep(30)


@app.task(time_limit=0.2, acks_late=True)
def hard_and_late(text):
    mark("begin", text)
    time.sleep(30)


@app.task(soft_time_limit=0.1, time_limit=0.4)
def hold_the_interpreter():
    # Waits for ever in C code that keeps the interpreter's lock and that no signal interrupts.
    mutex = ctypes.create_string_buffer(128)
    for _ in range(2):
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)


@app.task(soft_time_limit=0.02)
def just_in_time(seconds):
    time.sleep(seconds)
    return os.getpid()


@app.task(time_limit=30, soft_time_limit=20)
def plenty():
    return os.getpid()


@app.task
def unlimited(seconds):
    time.sleep(seconds)
    return os.getpid()


@app.task
def whoami():
    return os.getpid()


@app.task
def grow(megabytes):
    bytearray(megabytes * 1_000_000)
    return os.getpid()


@app.task
def swell(text, megabytes, seconds):
    held = bytearray(megabytes * 1_000_000)
    mark("begin", text)
    time.sleep(seconds)
    mark("end", text)
    return os.getpid()


@app.task(bind=True)
def limits(self):
    return self.request.timelimit
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        lab.worker("-c", "1", "-n", "one@here", name="worker")
        yield lab


def error_of(lab: Lab, task_id: str) -> dict[str, object]:
    found: dict[str, object] = lab.result(task_id, "FAILURE")["result"]
    return found


# -- soft -----------------------------------------------------------------------------------------------------------


def test_a_soft_limit_lets_the_task_clean_up(lab: Lab) -> None:
    before = lab.run("whoami")
    sent = time.time()
    assert lab.run("soft", "s1") == "cleaned up"
    assert 0.15 <= lab.written("cleanup", "s1")[0].time - sent < 5, "the limit begins after the task was sent"
    assert lab.run("whoami") == before, "its process lives on"


def test_a_soft_limit_that_nobody_catches_is_the_failure(lab: Lab) -> None:
    record = lab.result(lab.send("soft_uncaught"), "FAILURE")
    assert record["result"] == {
        "exc_type": "SoftTimeLimitExceeded",
        "exc_message": [],
        "exc_module": "billiard.exceptions",
    }
    assert "proj.py" in record["traceback"]


def test_a_soft_limit_is_told_once(lab: Lab) -> None:
    task_id = lab.send("soft_ignored", "once")
    assert error_of(lab, task_id)["exc_type"] == "TimeLimitExceeded"
    assert len(lab.written("ignored", "once")) == 1


def test_the_soft_limit_of_one_message_never_hits_the_next_one(lab: Lab) -> None:
    """Tasks that end at about their limit: each one is interrupted or not, and what follows is left alone."""
    ids = [(lab.send("just_in_time", 0.015 + number % 10 / 1000), lab.send("whoami")) for number in range(60)]
    for limited, other in ids:
        lab.value(other)
        lab.wait_for(lambda limited=limited: lab.state(limited), "it has ended")
        record = lab.record(limited)
        assert record is not None
        assert record["status"] == "SUCCESS" or record["result"]["exc_type"] == "SoftTimeLimitExceeded"
    states = {lab.state(limited) for limited, _other in ids}
    assert states == {"SUCCESS", "FAILURE"}


def test_the_signal_of_soft_limits_interrupts_nothing_else(lab: Lab) -> None:
    """It arrives while a message runs whose limit has not passed: whoever was meant has ended meanwhile."""
    task_id = lab.send("nap", "undisturbed", 0.4, soft_time_limit=30)
    mark = lab.wait_mark("begin", "undisturbed")
    for _ in range(5):
        os.kill(mark.pid, signal.SIGUSR1)
    assert lab.value(task_id) == mark.pid
    assert lab.wait_mark("end", "undisturbed").time - mark.time >= 0.4


# -- hard -----------------------------------------------------------------------------------------------------------


def test_a_hard_limit_kills_the_process_stores_a_failure_and_what_waited_runs(lab: Lab) -> None:
    before = lab.run("whoami")
    task_id, *others = [lab.send("hard", "h1"), *(lab.send("whoami") for _ in range(5))]
    sent = time.monotonic()
    record = lab.result(task_id, "FAILURE")
    assert 0.15 < time.monotonic() - sent < 5
    assert record["result"] == {
        "exc_type": "TimeLimitExceeded",
        "exc_message": [0.2],
        "exc_module": "billiard.exceptions",
    }
    assert record["traceback"] is None
    after = {lab.value(other) for other in others}
    assert len(after) == 1
    assert after != {before}
    assert not psutil.pid_exists(before)
    assert time.monotonic() - sent < 10
    assert task_id not in lab.dead()
    assert len(lab.written("begin", "h1")) == 1
    assert f"Hard time limit (0.2s) exceeded for proj.hard[{task_id}]" in lab.spawn.running[0].output()


def test_the_hard_limit_of_one_message_never_hits_the_next_one(lab: Lab) -> None:
    """Tasks that end at about their limit: each one is killed or not, and what follows runs once."""
    ids = []
    for number in range(24):
        limited = lab.send("unlimited", 0.045 + number % 8 / 500, time_limit=0.05)
        ids.append((limited, lab.send("nap", f"next-{number}", 0.001)))
    for number, (limited, other) in enumerate(ids):
        lab.value(other, 20)
        assert len(lab.written("begin", f"next-{number}")) == 1
        record = lab.record(limited)
        assert record is not None
        assert record["status"] == "SUCCESS" or record["result"]["exc_type"] == "TimeLimitExceeded"
    assert {lab.state(limited) for limited, _other in ids} == {"SUCCESS", "FAILURE"}
    assert not lab.dead()


@pytest.mark.parametrize("runs", [7, 8, 0])
def test_a_child_is_killed_only_while_it_runs_the_message_that_is_too_long(lab: Lab, tmp_path: Path, runs: int) -> None:
    """Between the look at the clock and the kill the child may have gone on to the next message."""
    table = Slots.create(tmp_path / "a.slots", Facts("w@here:00000000", ["celery"], "", []))
    children = Children(table, lambda _index: None, lambda _path: None, lambda _child, _status: None)
    running = lab.spawn(["sleep", "60"])
    identity = process.identify(running.pid)
    assert identity is not None
    child = Child(table.slot(0), Template(socket.socket(), 0), identity)
    child.slot.words[slots.CURRENT] = runs
    children.kill_running(child, 7, 0.2)
    if runs == 7:
        assert running.wait() == -signal.SIGKILL
        assert child.limit == (7, 0.2)
    else:
        lab.wait_for(lambda: psutil.Process(running.pid).status() == psutil.STATUS_SLEEPING, "it goes on")
        assert child.limit is None
        running.stop(signal.SIGKILL)
    child.template.link.close()


def test_a_whole_number_of_seconds_is_stored_as_one(lab: Lab) -> None:
    assert error_of(lab, lab.send("hard", "whole", time_limit=1))["exc_message"] == [1]


def test_a_late_acknowledged_task_that_ran_into_its_limit_does_not_run_again(lab: Lab) -> None:
    task_id = lab.send("hard_and_late", "l1")
    assert error_of(lab, task_id)["exc_type"] == "TimeLimitExceeded"
    lab.wait_for(lab.is_quiet, "its message is gone")
    assert lab.run("whoami")
    assert len(lab.written("begin", "l1")) == 1


def test_many_hard_limits_in_a_row_and_all_that_waits_between_them_runs(lab: Lab) -> None:
    ids = [(lab.send("hard", f"row-{number}"), lab.send("whoami")) for number in range(4)]
    for limited, other in ids:
        assert error_of(lab, limited)["exc_type"] == "TimeLimitExceeded"
        lab.value(other)
    assert [len(lab.written("begin", f"row-{number}")) for number in range(4)] == [1, 1, 1, 1]


def test_a_task_inside_c_code_that_holds_the_interpreter_is_killed_at_its_hard_limit(lab: Lab) -> None:
    sent = time.monotonic()
    assert error_of(lab, lab.send("hold_the_interpreter"))["exc_type"] == "TimeLimitExceeded"
    assert time.monotonic() - sent < 10
    assert lab.run("whoami")


def test_limits_of_the_call_win_over_those_of_the_task(lab: Lab) -> None:
    task_id = lab.send("plenty", time_limit=0.2)
    assert isinstance(lab.value(task_id), int)
    assert error_of(lab, lab.send("unlimited", 30, time_limit=0.2))["exc_message"] == [0.2]
    assert error_of(lab, lab.send("unlimited", 30, soft_time_limit=0.2))["exc_type"] == "SoftTimeLimitExceeded"
    assert lab.run("just_in_time", 0.1, soft_time_limit=5)
    assert lab.run("limits", time_limit=9, soft_time_limit=8) == [9, 8]


def test_a_task_within_its_limits_is_left_alone(lab: Lab) -> None:
    before = lab.run("whoami")
    assert {lab.run("plenty") for _ in range(20)} == {before}


def test_limits_of_the_worker_are_for_tasks_without_their_own(lab: Lab) -> None:
    lab.worker("-c", "1", "-Q", "limited", "--time-limit", "0.3", "--soft-time-limit=0.1", name="limited")
    assert error_of(lab, lab.send("unlimited", 30, queue="limited"))["exc_type"] == "SoftTimeLimitExceeded"
    assert error_of(lab, lab.send("hold_the_interpreter", queue="limited"))["exc_type"] == "TimeLimitExceeded"
    assert lab.run("plenty", queue="limited")
    assert error_of(lab, lab.send("unlimited", 30, queue="limited", soft_time_limit=5))["exc_message"] == [0.3]


# -- tasks and memory of a child --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 3])
def test_a_child_runs_exactly_as_many_tasks_as_it_may(lab: Lab, number: int) -> None:
    queue = f"few{number}"
    running = lab.worker("-c", "1", "-Q", queue, f"--max-tasks-per-child={number}", name=queue)
    count = 4 * number
    pids = [lab.value(task_id) for task_id in [lab.send("whoami", queue=queue) for _ in range(count)]]
    assert len(set(pids)) == 4
    assert all(pids.count(pid) == number for pid in pids)
    lab.wait_for(lambda: lab.is_quiet(queue), "nothing is left")
    assert "ERROR" not in running.output()
    assert running.stop() == 0


def test_two_children_with_few_tasks_each_share_a_long_queue(lab: Lab) -> None:
    ids = [lab.send("whoami", queue="many") for _ in range(60)]
    running = lab.worker("-c", "2", "-Q", "many", "--max-tasks-per-child=10", name="many")
    pids = [lab.value(task_id, 20) for task_id in ids]
    assert all(pids.count(pid) <= 10 for pid in pids)
    assert len(set(pids)) >= 6
    assert running.stop() == 0


def test_a_child_that_has_grown_too_large_is_replaced(lab: Lab) -> None:
    limit_kib = 200_000
    running = lab.worker("-c", "1", "-Q", "large", "--max-memory-per-child", str(limit_kib), name="large")
    first = lab.run("whoami", queue="large")
    assert lab.run("grow", 10, queue="large") == first
    assert lab.run("grow", 300, queue="large") == first, "the task that grew is not disturbed"
    second = lab.run("whoami", queue="large")
    assert second != first
    assert lab.run("whoami", queue="large") == second
    line = next(each for each in running.output().splitlines() if "grown beyond its limit" in each)
    grown = re.search(r"; proj.grow grew it most, by ([0-9,]+) KiB in \d runs?$", line)
    assert grown, line
    assert int(grown[1].replace(",", "")) > 250_000, "by about 300 MB"
    assert running.stop() == 0


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_the_task_that_grew_a_child_is_named_in_pools_of_many_too(lab: Lab, pool: str) -> None:
    queue = f"large-{pool}"
    running = lab.worker("-P", pool, "-c", "2", "-Q", queue, "--max-memory-per-child", "200000", name=queue)
    assert lab.run("grow", 300, queue=queue)
    lab.run("whoami", queue=queue)
    lab.wait_for(lambda: "grown beyond its limit" in running.output(), "it is said", 20)
    assert running.stop() == 0
    (line,) = [each for each in running.output().splitlines() if "grown beyond its limit" in each]
    assert "proj.grow grew it most" in line


def test_a_child_that_grows_inside_a_long_task_is_seen_and_replaced_after_it(lab: Lab) -> None:
    running = lab.worker("-c", "1", "-Q", "swell", "--max-memory-per-child", "200000", name="swell")
    task_id = lab.send("swell", "swollen", 300, 2.5, queue="swell")
    lab.wait_for(lambda: "inside a task, beyond its limit" in running.output(), "the parent says so")
    assert not lab.written("end", "swollen"), "while it runs"
    first = lab.value(task_id)
    assert lab.run("whoami", queue="swell") != first
    assert running.stop() == 0


def test_a_child_that_is_never_idle_is_replaced_too(lab: Lab) -> None:
    lab.push("steady", ("grow", 300), *[("nap", f"steady-{number}", 0.01) for number in range(200)])
    running = lab.worker("-c", "1", "-Q", "steady", "--max-memory-per-child", "200000", name="steady")
    lab.wait_mark("end", "steady-199", 20)
    assert len({mark.pid for mark in lab.written("end") if mark.text.startswith("steady-")}) == 1
    assert running.output().count("grown beyond its limit") == 1
    assert running.stop() == 0
