"""A worker that is resized, limited or renewed by remote commands while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import lab as labs
from support.lab import Lab
from support.processes import Running
from support.worker_project import children_of

from opsq.broker.mailbox import Mailbox, Request
from opsq.events.event import Channels

TASKS = """
app.conf.worker_pool_restarts = True


@app.task
def held(text, key):
    mark("begin", text)
    while not os.path.exists(os.environ["MARKS"] + key):
        time.sleep(0.01)
    mark("end", text)


@app.task
def forever():
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        yield lab


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    return request.node.name.replace("[", "-").rstrip("]")


def worker(lab: Lab, queue: str, *words: str) -> Running:
    return lab.worker("-Q", queue, "-n", f"{queue}@here", *words, name=queue)


def ask(lab: Lab, queue: str, method: str, **arguments: Any) -> Any:
    """What the worker of a queue replies."""
    mailbox = Mailbox(lab.app.broker, Channels.of(0, {}), "celery", frozenset({"application/json"}))
    request = Request(method, arguments, destination=[f"{queue}@here"])
    [reply] = mailbox.call(request, timeout_s=10, limit=1)
    return reply[f"{queue}@here"]


def test_the_pool_grows_and_shrinks_by_command(lab: Lab, queue: str) -> None:
    running = worker(lab, queue, "-c", "1")
    assert ask(lab, queue, "pool_grow", n=2) == {"ok": "pool will grow"}
    lab.wait_for(lambda: len(children_of(running)) == 3, "three children")
    for number in range(3):
        lab.send("held", f"{queue}-{number}", queue, queue=queue)
    for number in range(3):
        lab.wait_mark("begin", f"{queue}-{number}")
    assert ask(lab, queue, "pool_shrink", n=2) == {"ok": "pool will shrink"}
    (lab.folder / f"marks{queue}").touch()
    lab.wait_for(lambda: len(children_of(running)) == 1, "one is left")
    assert len([mark for mark in lab.written("end") if mark.text.startswith(queue)]) >= 2, "they ended what they ran"
    assert running.stop() == 0


def test_the_bounds_of_autoscale_are_moved_by_command(lab: Lab, queue: str) -> None:
    running = worker(lab, queue, "--autoscale", "2,1")
    assert ask(lab, queue, "autoscale", max=5, min=4) == {"ok": "autoscale now max=5 min=4"}
    lab.wait_for(lambda: len(children_of(running)) == 4, "four at least")
    assert "cannot scale" in ask(lab, queue, "autoscale", max=1, min=4)["error"]
    assert ask(lab, queue, "autoscale", max=1, min=1) == {"ok": "autoscale now max=1 min=1"}
    lab.wait_for(lambda: len(children_of(running)) == 1, "one at most")
    assert running.stop() == 0


def test_without_autoscale_its_bounds_cannot_be_moved(lab: Lab, queue: str) -> None:
    running = worker(lab, queue, "-c", "1")
    assert ask(lab, queue, "autoscale", max=5, min=4) == {"error": "ValueError('Autoscale not enabled')"}
    assert running.stop() == 0


def test_time_limits_set_by_command_hold_for_all_later_runs(lab: Lab, queue: str) -> None:
    running = worker(lab, queue, "-c", "1")
    assert ask(lab, queue, "time_limit", task_name="proj.unheard", hard=1) == {"error": "unknown task"}
    told = ask(lab, queue, "time_limit", task_name="proj.forever", hard=0.3)
    assert told == {"ok": "time limits set successfully"}
    for _ in range(2):  # also in the child that replaces the one that was killed
        record = lab.result(lab.send("forever", queue=queue), "FAILURE")
        assert record["result"]["exc_type"] == "TimeLimitExceeded"
    ask(lab, queue, "time_limit", task_name="proj.forever", hard=30, soft=0.2)
    record = lab.result(lab.send("forever", queue=queue), "FAILURE")
    assert record["result"]["exc_type"] == "SoftTimeLimitExceeded"
    assert running.stop() == 0


def test_the_pool_is_restarted_by_command(lab: Lab, queue: str) -> None:
    running = worker(lab, queue, "-c", "1")
    before = {child.pid for child in children_of(running)}
    assert ask(lab, queue, "pool_restart") == {"ok": "reload started"}
    lab.wait_for(
        lambda: children_of(running) and not before & {child.pid for child in children_of(running)}, "another one"
    )
    began = time.monotonic()
    assert lab.run("add", 1, 2, queue=queue) == 3
    assert time.monotonic() - began < labs.soon(1)
    assert running.stop() == 0
