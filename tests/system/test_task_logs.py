"""`opsq logs --task`: what a task logs and prints is kept and shown, while it runs and after it, at no cost to it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
from support import lab as labs
from support.lab import Lab

from opsq.broker import task_logs

TASKS = """
import logging
import threading

from opsq.utils.log import get_task_logger

log = get_task_logger(__name__)


def wait_for(name):
    deadline = time.monotonic() + 20
    while not os.path.exists(name) and time.monotonic() < deadline:
        time.sleep(0.002)


@app.task
def inner():
    log.info("in another task's function")


@app.task(bind=True)
def talk(self, waits=False):
    print("printed")
    log.info("logged %d", 1)
    logging.getLogger("some.library").warning("from a library")
    inner()
    if waits:
        mark("talks", self.request.id)
        wait_for("go-" + self.request.id)
        print("in the end", end="")


@app.task
def fail():
    log.info("before")
    try:
        raise KeyError("inner")
    except KeyError:
        log.exception("caught")
    raise ValueError("for good")


@app.task(bind=True, max_retries=1)
def again(self):
    print("try", self.request.retries)
    if not self.request.retries:
        raise self.retry(countdown=0)


class Odd:
    def __str__(self):
        raise RuntimeError("no text")


@app.task
def odd():
    log.info("a %s", Odd())
    log.info("not enough %s %s", 1)
    log.info("other id", extra={"task_id": 5})
    return "unhurt"


@app.task
def many(count):
    for number in range(count):
        log.info("number %d", number)


@app.task
def connections():
    return [len(os.listdir("/proc/self/fd")), threading.active_count()]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        lab.worker("-c", "2", "-n", "w@here", name="worker")
        yield lab


def command(lab: Lab, *line: str) -> subprocess.CompletedProcess[str]:
    argv = [*labs.OPSQ, "-A", "proj", "logs", *line]
    env = lab.spawn.environment(lab.environment)
    return subprocess.run(argv, cwd=lab.folder, env=env, capture_output=True, text=True, timeout=30)


def kept(lab: Lab, task_id: str) -> list[dict[str, Any]]:
    return [asdict(line) for line in task_logs.read(lab.app.broker, task_id)]


def wait_kept(lab: Lab, task_id: str, count: int) -> list[dict[str, Any]]:
    """The lines of a task, once there are so many."""
    lab.wait_for(lambda: len(kept(lab, task_id)) >= count, f"{count} lines of {task_id}")
    return kept(lab, task_id)


def test_what_a_task_logs_and_prints_is_shown_while_it_runs_and_after(lab: Lab) -> None:
    task_id = lab.send("talk", True)
    lab.wait_mark("talks", task_id)
    said = wait_kept(lab, task_id, 4)
    assert [(line["level"], line["message"]) for line in said] == [
        ("WARNING", "printed"),
        ("INFO", "logged 1"),
        ("WARNING", "from a library"),
        ("INFO", "in another task's function"),
    ]
    (lab.folder / f"go-{task_id}").touch()
    lab.result(task_id)
    assert [line["message"] for line in wait_kept(lab, task_id, 5)][4:] == ["in the end"]
    shown = command(lab, "--task", task_id, "-n", "2").stdout.splitlines()
    assert [line.partition("] ")[2] for line in shown] == ["in another task's function", "in the end"]
    told = [json.loads(line) for line in command(lab, "--task", task_id, "--json").stdout.splitlines()]
    assert told == [{"task_id": task_id, **line} for line in kept(lab, task_id)]


def test_following_a_task_ends_with_it(lab: Lab) -> None:
    task_id = lab.send("talk", True)
    lab.wait_mark("talks", task_id)
    argv = [*labs.OPSQ, "-A", "proj", "logs", "--task", task_id, "-f"]
    follower = lab.spawn(argv, name="follower", env=lab.environment, cwd=lab.folder)
    lab.wait_for(lambda: "in another" in follower.output(), "the lines so far")
    assert "in the end" not in follower.output()
    (lab.folder / f"go-{task_id}").touch()
    assert follower.wait(20) == 0
    lines = [line for line in follower.output().splitlines() if line.startswith("[")]
    assert [line.partition("] ")[2] for line in lines][-1:] == ["in the end"]
    assert len(lines) == 5


def test_how_a_task_failed_is_among_its_lines(lab: Lab) -> None:
    task_id = lab.send("fail")
    before, caught, failed = wait_kept(lab, task_id, 3)
    assert before["message"] == "before"
    assert caught["message"].startswith("caught\nTraceback")
    assert "KeyError: 'inner'" in caught["message"]
    assert failed["level"] == "ERROR"
    assert failed["message"].endswith("ValueError: for good")


def test_the_lines_of_all_tries_stand_together(lab: Lab) -> None:
    task_id = lab.send("again")
    said = [line["message"] for line in wait_kept(lab, task_id, 3)]
    assert said[0] == "try 0"
    assert "retry" in said[1]
    assert said[2] == "try 1"


def test_what_cannot_be_shown_hurts_no_task(lab: Lab) -> None:
    task_id = lab.send("odd")
    assert lab.value(task_id) == "unhurt"
    lab.wait_for(lambda: kept(lab, task_id)[-1:] and kept(lab, task_id)[-1]["message"] == "other id", "the last line")
    said = [line["message"] for line in kept(lab, task_id) if "cannot be shown" in line["message"]]
    assert "RuntimeError('no text')" in said[0]
    assert "not enough" in said[1]


def test_a_task_that_says_nothing_leaves_nothing_and_costs_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    with labs.opened(tmp_path_factory, TASKS, "silent") as lab:
        lab.worker("-c", "1")
        before = lab.run("connections")
        for number in range(50):
            lab.send("add", number, 1)
        after = lab.run("connections")
        assert after[0] == before[0]  # no connection more
        assert not [*lab.redis.scan_iter("opsq:task-log*")]
        assert after[1] <= before[1] + 1  # at most the thread that looks for stalled tasks


def refused(lab: Lab) -> bool:
    """Whether the server has refused to take a line."""
    told: Any = lab.redis.info("commandstats")
    return bool(told["cmdstat_append"]["rejected_calls"])


def test_a_server_that_is_full_costs_lines_and_nothing_else(tmp_path_factory: pytest.TempPathFactory) -> None:
    with labs.opened(tmp_path_factory, TASKS, "full") as lab:
        lab.worker("-c", "1")
        lab.run("add", 1, 2)
        task_id = lab.send("talk", True)
        lab.wait_mark("talks", task_id)
        wait_kept(lab, task_id, 4)
        lab.redis.config_set("maxmemory", "1")
        (lab.folder / f"go-{task_id}").touch()
        lab.wait_for(lambda: refused(lab), "the line is refused")
        lab.redis.config_set("maxmemory", "0")
        lab.wait_for(lambda: lab.in_flight() == 0, "the task is settled all the same")
        assert len(kept(lab, task_id)) == 4
        second = lab.send("talk")
        wait_kept(lab, second, 4)


@pytest.mark.parametrize("pool", ["threads", "asyncio", "solo"])
def test_lines_of_tasks_that_run_beside_each_other_are_kept_apart(
    pool: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with labs.opened(tmp_path_factory, TASKS, pool) as lab:
        lab.worker("-P", pool, "-c", "4")
        ids = [lab.send("many", number) for number in (5, 6, 7)]
        for count, task_id in zip((5, 6, 7), ids, strict=True):
            said = [line["message"] for line in wait_kept(lab, task_id, count)]
            assert said == [f"number {number}" for number in range(count)]


def test_what_was_logged_last_is_written_when_a_worker_stops(tmp_path_factory: pytest.TempPathFactory) -> None:
    with labs.opened(tmp_path_factory, TASKS, "stops") as lab:
        worker = lab.worker("-c", "1")
        task_id = lab.send("talk", True)
        lab.wait_mark("talks", task_id)
        worker.send(signal.SIGTERM)
        (lab.folder / f"go-{task_id}").touch()
        assert worker.wait() == 0
        assert [line["message"] for line in kept(lab, task_id)][-1] == "in the end"


def test_more_than_can_be_written_leaves_out_the_first_lines(lab: Lab) -> None:
    task_id = lab.send("many", 20_000)
    lab.result(task_id)
    lab.wait_for(lambda: "number 19999" in str(kept(lab, task_id)[-1:]), "the last line")


def test_a_worker_may_be_told_to_keep_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    with labs.opened(tmp_path_factory, f"{TASKS}\n\napp.conf.task_log_max_bytes = 0\n", "none") as lab:
        worker = lab.worker("-c", "1")
        task_id = lab.send("talk")
        lab.result(task_id)
        assert worker.stop() == 0
        assert not [*lab.redis.scan_iter("opsq:task-log*")]
        found = command(lab, "--task", task_id)
        assert (found.returncode, found.stdout) == (0, "")
        assert "task_log_max_bytes is 0 here" in found.stderr
        assert "hint: set it" in found.stderr
    assert "nothing yet" not in found.stderr


def test_a_task_and_programs_do_not_fit_together(lab: Lab) -> None:
    found = command(lab, "worker", "--task", "x")
    assert found.returncode == 2
    assert "do not fit together" in found.stderr
