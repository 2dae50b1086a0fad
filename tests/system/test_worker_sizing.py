"""Children start when they are needed and end when they are not; nobody waits while another one could be started."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import psutil
import pytest
from support import lab as labs
from support.lab import Lab
from support.processes import Running
from support.worker_project import children_of

TASKS = """
@app.task(acks_late=True, ignore_result=True)
def late(text, seconds=0.0):
    mark("begin", text)
    time.sleep(seconds)
    mark("end", text)


@app.task(acks_late=True, ignore_result=True)
def held(text, key):
    mark("begin", text)
    while not os.path.exists(os.environ["MARKS"] + key):
        time.sleep(0.01)
    mark("end", text)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        yield lab


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    return request.node.name.replace("[", "-").rstrip("]")


def worker(lab: Lab, queue: str, *words: str, **environment: str) -> Running:
    return lab.worker("-Q", queue, "-n", f"{queue}@here", *words, name=queue, **environment)


def release(lab: Lab, key: str) -> None:
    """Let the tasks end that were sent with this key."""
    (lab.folder / f"marks{key}").touch()


def at_work(lab: Lab, prefix: str) -> int:
    """How many tasks run now."""
    begun = {mark.text for mark in lab.written("begin") if mark.text.startswith(prefix)}
    return len(begun - {mark.text for mark in lab.written("end")})


def test_a_thousand_children_are_not_started_before_they_are_needed(lab: Lab, queue: str) -> None:
    before = len(lab.redis.client_list())
    running = worker(lab, queue, "-c", "1000")
    assert len(children_of(running)) == 16
    assert len(lab.redis.client_list()) - before <= 16 + 3
    for number in range(16):
        lab.send("nap", f"{queue}-{number}", queue=queue)
    lab.wait_for(lambda: lab.is_quiet(queue), "short tasks are done")
    assert running.stop() == 0


def test_long_tasks_run_side_by_side_up_to_the_most(lab: Lab, queue: str) -> None:
    running = worker(lab, queue, "-c", "24", AUTOSCALE_KEEPALIVE="2")
    for number in range(30):
        lab.send("held", f"{queue}-{number}", queue, queue=queue)
    lab.wait_for(lambda: at_work(lab, queue) == 24, "24 run side by side", 20)
    assert len(children_of(running)) == 24, "and no more"
    release(lab, queue)
    lab.wait_for(lambda: lab.is_quiet(queue), "all are done", 15)
    lab.wait_for(lambda: len(children_of(running)) == 16, "surplus ones end when they idle", 15)
    assert lab.run("add", 1, 2, queue=queue) == 3
    assert running.stop() == 0


def test_short_tasks_that_keep_all_busy_bring_more_children_too(lab: Lab, queue: str) -> None:
    """Each takes less than what counts as long; together they wait."""
    lab.push(queue, *[("nap", f"{queue}-{number}", 0.002) for number in range(4000)])
    running = worker(lab, queue, "--autoscale", "3,1")
    lab.wait_for(lambda: len(children_of(running)) == 3, "it has grown", 15)
    assert running.stop() == 0
    lab.redis.delete(queue)


def test_autoscale_grows_for_what_waits_and_shrinks_again(lab: Lab, queue: str) -> None:
    running = worker(lab, queue, "--autoscale", "4,1", AUTOSCALE_KEEPALIVE="1")
    assert "1 to 4 (prefork)" in running.output()
    lab.send("late", f"{queue}-alone", 1.5, queue=queue)
    lab.wait_mark("end", f"{queue}-alone")
    assert len(children_of(running)) == 1, "nothing waited, so it is still one"
    for number in range(8):
        lab.send("held", f"{queue}-{number}", queue, queue=queue)
    lab.wait_for(lambda: at_work(lab, queue) == 4, "four run side by side", 20)
    release(lab, queue)
    lab.wait_for(lambda: lab.is_quiet(queue), "all are done", 15)
    lab.wait_for(lambda: len(children_of(running)) == 1, "it has shrunk", 10)
    assert running.stop() == 0


def test_messages_of_a_celery_client_that_wait_bring_more_children(lab: Lab, queue: str) -> None:
    """Its delivery tags tell no time."""
    running = worker(lab, queue, "--autoscale", "2,1")
    lab.push(queue, *[("held", f"{queue}-{number}", queue) for number in range(2)])
    lab.wait_for(lambda: at_work(lab, queue) == 2, "both run", 20)
    release(lab, queue)
    assert running.stop() == 0


@pytest.mark.parametrize("words", ["1", "2,3", "0,0", "x", "2000,1"])
def test_bounds_that_are_none_are_refused(lab: Lab, queue: str, words: str) -> None:
    running = lab.worker("--autoscale", words, "-Q", queue, name=f"refused-{words}", ready=False)
    if words == "1":
        lab.wait_for(lambda: " ready." in running.output(), "MIN may be left out")
        assert running.stop() == 0
        return
    assert running.wait() == 2
    assert "Traceback" not in running.output()
    assert "MAX,MIN" in running.output()


def test_short_tasks_do_not_wait_for_long_ones_while_a_child_can_be_started(lab: Lab, queue: str) -> None:
    """Long tasks take all children that are there; what comes then runs at once in a fresh one."""
    running = worker(lab, queue, "-c", "20")
    for number in range(16):
        lab.send("held", f"{queue}-long-{number}", queue, queue=queue)
    lab.wait_for(lambda: at_work(lab, f"{queue}-long") == 16, "all are busy")
    lab.wait_for(lambda: len(children_of(running)) > 16, "one more waits for what comes next")
    sent = time.time()
    lab.send("nap", f"{queue}-short", queue=queue)
    assert lab.wait_mark("begin", f"{queue}-short").time - sent < labs.soon(1), "it did not wait for a long one"
    assert at_work(lab, f"{queue}-long") == 16
    release(lab, queue)
    assert running.stop() == 0


@pytest.mark.parametrize("seed", range(2))
def test_whoever_is_killed_while_it_grows_and_shrinks_nothing_is_lost(lab: Lab, queue: str, seed: int) -> None:
    chance = random.Random(seed)
    running = worker(lab, queue, "--autoscale", "6,1", AUTOSCALE_KEEPALIVE="0.3")
    until, count = time.monotonic() + 5, 0
    while time.monotonic() < until:
        for _ in range(chance.choice((0, 20))):
            lab.send("late", f"{queue}-{count}", chance.choice((0.0, 0.02)), queue=queue)
            count += 1
        time.sleep(chance.uniform(0.0, 0.4))
        found = psutil.Process(running.pid).children(recursive=True)
        if found:
            chance.choice(found).kill()
    lab.wait_for(lambda: lab.is_quiet(queue), "all are done", 20)
    done = {mark.text for mark in lab.written("end")}
    assert all(f"{queue}-{number}" in done for number in range(count))
    assert not lab.dead(queue)
    assert running.stop() == 0
