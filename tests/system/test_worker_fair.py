"""Nothing waits behind a long task: what is in hand and not started goes to whoever is free, in its order."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest
from support import lab as labs
from support.lab import Lab
from support.processes import Running

TASKS = """
@app.task(ignore_result=True)
def tick(text):
    mark("tick", text)


@app.task(ignore_result=True)
def slow(text, seconds):
    mark("begin", text)
    time.sleep(seconds)
    mark("end", text)


@app.task(ignore_result=True)
def compute(text, seconds):
    mark("begin", text)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    mark("end", text)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        yield lab


@pytest.fixture
def queue(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """A queue of the test's own, and no workers left behind."""
    yield request.node.name.replace("[", "-").rstrip("]")
    lab.end_workers()


def ticks(lab: Lab, prefix: str) -> list[labs.Mark]:
    return [mark for mark in lab.written("tick") if mark.text.startswith(prefix)]


def warm_up(lab: Lab, queue: str) -> None:
    """Run so many short tasks that every child takes large batches."""
    lab.push(queue, *[("tick", f"warm-{queue}") for _ in range(5000)])
    lab.wait_for(lambda: len(ticks(lab, f"warm-{queue}")) == 5000, "the warm-up")
    lab.wait_for(lambda: lab.is_quiet(queue), "and its end")


@pytest.mark.parametrize("kind", ["slow", "compute"])
def test_what_is_leased_behind_a_long_task_is_done_by_another_child(lab: Lab, queue: str, kind: str) -> None:
    lab.worker("-c", "2", "-Q", queue, "-l", "warning", name=queue, ready=False)
    warm_up(lab, queue)
    text = f"{queue}-long"
    batch = [("tick", f"{text}-{number}") for number in range(100)]
    lab.push(queue, *batch[:5], (kind, text, 6.0), *batch[5:])
    lab.wait_mark("begin", text)
    lab.wait_for(lambda: len(ticks(lab, f"{text}-")) == 100, "the short ones are done", 5.9)
    assert not lab.written("end", text), "while the long one runs"
    done = ticks(lab, f"{text}-")
    assert len({mark.text for mark in done}) == 100, "each of them once"
    lab.wait_mark("end", text)
    lab.wait_for(lambda: lab.is_quiet(queue), "and settled")


def test_a_long_task_in_each_child_holds_nothing_else(lab: Lab, queue: str) -> None:
    lab.worker("-c", "2", "-Q", queue, "-l", "warning", name=queue, ready=False)
    warm_up(lab, queue)
    messages = [("slow", f"{queue}-{number}", 1.5) for number in range(2)]
    messages += [("tick", f"{queue}-{number}") for number in range(50)]
    lab.push(queue, *messages)
    lab.wait_mark("begin", f"{queue}-1")
    lab.wait_for(lambda: lab.in_flight() == 2 and lab.depth(queue) == 50, "the rest is back in the queue", 1.4)
    lab.wait_for(lambda: len(ticks(lab, f"{queue}-")) == 50, "and done in the end")
    first = min(mark.time for mark in lab.written("end") if mark.text.startswith(queue))
    for pid in {mark.pid for mark in ticks(lab, f"{queue}-")}:
        numbers = [int(mark.text.rpartition("-")[2]) for mark in ticks(lab, f"{queue}-") if mark.pid == pid]
        assert numbers == sorted(numbers)
    assert ticks(lab, f"{queue}-")[0].time >= first - 0.01


def test_a_worker_with_one_child_runs_everything_in_order(lab: Lab, queue: str) -> None:
    lab.worker("-c", "1", "-Q", queue, "-l", "warning", name=queue, ready=False)
    warm_up(lab, queue)
    messages = []
    for number in range(30):
        messages.append(("tick", f"{queue}-{number}"))
        if number % 10 == 5:
            messages.append(("slow", f"{queue}-{number}", 0.05))
    lab.push(queue, *messages)
    lab.wait_for(lambda: len(ticks(lab, f"{queue}-")) == 30, "all are done")
    assert [mark.text for mark in ticks(lab, f"{queue}-")] == [f"{queue}-{number}" for number in range(30)]


def test_a_warm_stop_gives_back_what_is_in_hand_in_its_order(lab: Lab, queue: str) -> None:
    running = lab.worker("-c", "1", "-Q", queue, "-l", "warning", name=queue, ready=False)
    warm_up(lab, queue)
    messages = [("slow", queue, 0.4)]
    messages += [("tick", f"{queue}-{number}") for number in range(50)]
    lab.push(queue, *messages)
    lab.wait_mark("begin", queue)
    assert running.stop() == 0
    assert lab.written("end", queue)
    assert lab.depth(queue) == 50
    assert not lab.in_flight()
    lab.worker("-c", "1", "-Q", queue, name=f"{queue}-2")
    lab.wait_for(lambda: len(ticks(lab, f"{queue}-")) == 50, "all are done")
    assert [mark.text for mark in ticks(lab, f"{queue}-")] == [f"{queue}-{number}" for number in range(50)]


@pytest.mark.parametrize(
    ("wish", "most"),
    [
        ("--prefetch-multiplier=1", 1),
        ("--prefetch-multiplier=3", 3),
        ("--disable-prefetch", 1),
        ("CELERY_WORKER_PREFETCH_MULTIPLIER=2", 2),
        ("CELERY_WORKER_DISABLE_PREFETCH=yes", 1),
    ],
)
def test_what_a_child_has_in_hand_is_capped(lab: Lab, queue: str, wish: str, most: int) -> None:
    lab.push(queue, *[("tick", f"{queue}-{number}") for number in range(300)])
    options, environment = ([wish], {}) if wish.startswith("--") else ([], dict([wish.split("=")]))
    running = lab.worker("-c", "1", "-Q", queue, *options, "-l", "warning", ready=False, **environment)
    held = [0]

    def all_done() -> bool:
        held.append(lab.in_flight())
        return len(ticks(lab, f"{queue}-")) == 300

    lab.wait_for(all_done, "all are done")
    assert max(held) <= most
    assert [mark.text for mark in ticks(lab, f"{queue}-")] == [f"{queue}-{number}" for number in range(300)]
    assert running.alive()


def test_a_solo_worker_renews_its_lease_while_a_task_runs(lab: Lab, queue: str) -> None:
    """The task takes longer than two leases, and a second worker is there to take over."""
    solo = lab.worker("-P", "solo", "-Q", queue, "--lease", "0.6", "-n", "solo@here", name="solo")
    lab.send("slow", "solo", 1.5, queue=queue)
    begin = lab.wait_mark("begin", "solo")
    lab.worker("-c", "1", "-Q", queue, "--lease", "0.6", "-n", "peer@here", name="peer")
    assert lab.wait_mark("end", "solo").pid == begin.pid
    lab.wait_for(lambda: lab.is_quiet(queue), "its message is gone")
    assert len(lab.written("begin", "solo")) == 1
    assert not lab.dead(queue)
    assert solo.alive()


def test_a_solo_worker_has_one_child_and_stops_like_the_others(lab: Lab, queue: str) -> None:
    running = lab.worker("-P", "solo", "-c", "4", "-Q", queue, name="solo-2")
    assert "1 (solo)" in running.output()
    lab.send("slow", "solo-2", 0.3, queue=queue)
    lab.wait_mark("begin", "solo-2")
    assert running.stop(signal.SIGINT) == 0
    assert lab.written("end", "solo-2")


def test_several_workers_share_a_queue(lab: Lab, queue: str) -> None:
    workers: list[Running] = [lab.worker("-c", "1", "-Q", queue, "-n", f"w{n}@here", name=f"w{n}") for n in range(3)]
    messages = [("slow", f"{queue}-{number}", 0.05) for number in range(30)]
    began = time.monotonic()
    lab.push(queue, *messages)
    lab.wait_for(lambda: lab.is_quiet(queue), "all are done")
    assert time.monotonic() - began < 30 * 0.05, "side by side"
    done = [mark for mark in lab.written("end") if mark.text.startswith(queue)]
    assert len({mark.text for mark in done}) == len(done) == 30
    assert len({mark.pid for mark in done}) == 3
    assert all(worker.alive() for worker in workers)
