"""Stopping: what runs may end within its time, the rest goes back at once and in order, whoever is killed meanwhile."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest
from support import lab as labs
from support.lab import Lab
from support.processes import Running

TASKS = """
@app.task(acks_late=True, ignore_result=True)
def late(text, seconds=0.0):
    mark("begin", text)
    time.sleep(seconds)
    mark("end", text)


app.conf.worker_soft_shutdown_timeout = float(os.environ.get("SOFT", 0))
app.conf.worker_enable_soft_shutdown_on_idle = bool(os.environ.get("ON_IDLE"))
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        yield lab


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    return request.node.name.replace("[", "-").rstrip("]")


def worker(lab: Lab, queue: str, *words: str, name: str = "", **environment: str) -> Running:
    return lab.worker("-Q", queue, "-n", f"{name or queue}@here", *words, name=name or queue, **environment)


def waiting(lab: Lab, queue: str) -> list[str]:
    """The first argument of what waits, the next one first."""
    raws: list[bytes] = lab.redis.lrange(queue, 0, -1)  # type: ignore[assignment]
    bodies = [base64.b64decode(json.loads(raw)["body"]) for raw in reversed(raws)]
    return [json.loads(body)[0][0] for body in bodies]


def stopped_within(running: Running, number: int) -> float:
    began = time.monotonic()
    assert running.stop(number) == 0, running.report()
    return time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_lets_the_task_end(lab: Lab, queue: str, number: int) -> None:
    """Ctrl-C, and `stopasgroup` of a supervisor."""
    running = worker(lab, queue, "-c", "2")
    lab.send("nap", queue, 2.0, queue=queue)
    begin = lab.wait_mark("begin", queue)
    os.killpg(os.getpgid(running.pid), number)
    assert running.wait(10) == 0
    [end] = lab.written("end", queue)
    assert end.pid == begin.pid
    assert end.time - begin.time >= 2.0
    assert lab.is_quiet(queue)


def test_after_the_soft_time_what_still_runs_is_ended_and_late_ones_are_back(lab: Lab, queue: str) -> None:
    running = worker(lab, queue, "-c", "3", SOFT="1.0")
    lab.send("late", f"{queue}-long", 60, queue=queue)
    early = lab.send("nap", f"{queue}-early", 60, queue=queue)
    for name in ("long", "early"):
        lab.wait_mark("begin", f"{queue}-{name}")
    lab.send("late", f"{queue}-short", 0.3, queue=queue)
    lab.wait_mark("begin", f"{queue}-short")
    assert 0.9 <= stopped_within(running, signal.SIGTERM) < labs.soon(1.5)
    assert lab.written("end", f"{queue}-short"), "what could end has ended"
    assert lab.depth(queue) == 1, "what acknowledges late is back at once"
    assert list(lab.dead(queue)) == [early], "of the other nobody knows what it had done"
    assert not lab.in_flight()
    lab.redis.delete(queue)


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGTERM])
def test_quit_is_cold_and_so_is_term_if_it_is_remapped(lab: Lab, queue: str, number: int) -> None:
    remapped = {"REMAP_SIGTERM": "SIGQUIT"} if number == signal.SIGTERM else {}
    running = worker(lab, queue, "-c", "1", **remapped)
    lab.send("late", queue, 60, queue=queue)
    lab.wait_mark("begin", queue)
    assert stopped_within(running, number) < labs.soon(1)
    assert lab.depth(queue) == 1
    lab.redis.delete(queue)


def test_quit_with_a_soft_time_waits_for_what_ends_in_it(lab: Lab, queue: str) -> None:
    running = worker(lab, queue, "-c", "1", SOFT="20")
    lab.send("late", queue, 0.5, queue=queue)
    lab.wait_mark("begin", queue)
    assert stopped_within(running, signal.SIGQUIT) < 15
    assert lab.written("end", queue)
    assert lab.is_quiet(queue)


def test_a_second_signal_does_not_wait_for_the_soft_time(lab: Lab, queue: str) -> None:
    running = worker(lab, queue, "-c", "1", SOFT="60")
    lab.send("late", queue, 60, queue=queue)
    lab.wait_mark("begin", queue)
    running.send(signal.SIGTERM)
    lab.wait_for(lambda: "Warm shutdown" in running.output(), "it has begun")
    time.sleep(0.6)  # a second signal sooner than half a second is the same Ctrl-C
    assert stopped_within(running, signal.SIGTERM) < labs.soon(1)
    assert lab.depth(queue) == 1
    lab.redis.delete(queue)


@pytest.mark.parametrize(("on_idle", "least", "most"), [("1", 0.9, 20.0), ("", 0.0, 0.8)])
def test_an_idle_worker_waits_only_if_it_is_told_to(
    lab: Lab, queue: str, on_idle: str, least: float, most: float
) -> None:
    running = worker(lab, queue, "-c", "1", SOFT="1.0" if on_idle else "20", ON_IDLE=on_idle)
    took = stopped_within(running, signal.SIGTERM)
    assert took >= least
    assert took < labs.soon(most) if not on_idle else took < most


def test_after_a_cold_stop_everything_is_back_in_order_at_once(lab: Lab, queue: str) -> None:
    running = worker(lab, queue, "-c", "4", "--lease", "60")
    for number in range(4):
        lab.send("late", f"{queue}-{number}", 60, queue=queue)
        lab.wait_mark("begin", f"{queue}-{number}")
    for number in range(4, 20):
        lab.send("late", f"{queue}-{number}", 60, queue=queue)
    assert stopped_within(running, signal.SIGQUIT) < labs.soon(1)
    assert waiting(lab, queue) == [f"{queue}-{number}" for number in range(20)]
    assert not lab.in_flight()
    lab.redis.delete(queue)


@pytest.mark.parametrize("victim", ["template", "child", "all children"])
def test_whoever_is_killed_during_a_stop_nothing_is_lost(lab: Lab, queue: str, victim: str) -> None:
    running = worker(lab, queue, "-c", "2")
    messages = [f"{queue}-{number}" for number in range(30)]
    for text in messages:
        lab.send("late", text, 0.2, queue=queue)
    lab.wait_mark("begin", messages[3])
    [template] = psutil.Process(running.pid).children()
    children = template.children()
    running.send(signal.SIGTERM)
    for process in {"template": [template], "child": children[:1], "all children": children}[victim]:
        process.kill()
    assert running.wait(20) == 0
    assert not lab.in_flight()
    done = {mark.text for mark in lab.written("end")}
    assert sorted(waiting(lab, queue)) == sorted(text for text in messages if text not in done)
    lab.redis.delete(queue)


def test_the_parent_killed_during_a_stop_leaves_it_to_its_successor(lab: Lab, queue: str) -> None:
    first = worker(lab, queue, "-c", "2", name=f"{queue}-1")
    for number in range(10):
        lab.send("late", f"{queue}-{number}", 0.2, queue=queue)
    lab.wait_mark("begin", f"{queue}-1")
    first.send(signal.SIGTERM)
    first.stop(signal.SIGKILL)
    second = worker(lab, queue, "-c", "2", name=f"{queue}-2")
    lab.wait_for(lambda: lab.is_quiet(queue), "all are done", 20)
    for number in range(10):
        assert lab.written("end", f"{queue}-{number}")
    assert second.stop() == 0
