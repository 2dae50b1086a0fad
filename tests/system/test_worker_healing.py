"""A worker that was cut off, or stood still, and was taken for lost: what it had begun ends as it ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from support import lab as labs
from support.lab import Lab
from support.processes import Running

TASKS = """
@app.task
def wait_for(text, path):
    mark("begin", text)
    while not os.path.exists(path):
        time.sleep(0.01)
    mark("end", text)
    return "told " + text


@app.task(acks_late=True)
def late_wait_for(text, path):
    return wait_for.run(text, path)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        yield lab


@pytest.fixture
def lost(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A worker on a host of its own, whose parent stops renewing when the test says so; and its peer."""
    own = tmp_path_factory.mktemp("host")
    lost = lab.worker("-c", "1", "--lease", "1", "-n", "lost@here", "--state-dir", str(own), name="lost")
    yield lost
    lost.send(signal.SIGCONT)
    lab.end_workers()


def cut_off(lab: Lab, lost: Running) -> Running:
    """The worker stands still until a peer has taken over; its child goes on."""
    lost.send(signal.SIGSTOP)
    peer = lab.worker("-c", "1", "--lease", "1", "-n", "peer@here", name="peer")
    lab.wait_for(lambda: "took over 1 messages of lost@here" in peer.output(), "the peer has taken over")
    return peer


def test_the_end_of_a_task_takes_its_dead_letter_back(lab: Lab, lost: Running) -> None:
    path = lab.folder / "go-1"
    task_id = lab.send("wait_for", "truth", str(path))
    lab.wait_mark("begin", "truth")
    cut_off(lab, lost)
    assert lab.dead()[task_id]["reason"] == "lost@here was lost, the task may have started"
    lab.result(task_id, "FAILURE")
    path.touch()
    lab.wait_for(lambda: lab.state(task_id) == "SUCCESS", "its true end is stored")
    assert lab.value(task_id) == "told truth"
    assert not lab.dead()
    assert len(lab.written("begin", "truth")) == 1
    lost.send(signal.SIGCONT)
    assert lab.run("add", 1, 1) == 2


def test_a_letter_that_was_dropped_is_not_made_again(lab: Lab, lost: Running) -> None:
    path = lab.folder / "go-2"
    task_id = lab.send("wait_for", "dropped", str(path))
    lab.wait_mark("begin", "dropped")
    cut_off(lab, lost)
    lab.redis.hdel("opsq:dead:{celery}", task_id)
    lab.redis.zrem("opsq:dead-index:{celery}", task_id)
    path.touch()
    lost.send(signal.SIGCONT)
    lab.wait_for(lambda: not lab.in_flight() and lab.run("add", 1, 1) == 2, "it has ended")
    lab.result(task_id, "FAILURE")
    assert not lab.dead()


def test_what_was_given_to_a_peer_is_the_peers(lab: Lab, lost: Running) -> None:
    path = lab.folder / "go-3"
    task_id = lab.send("late_wait_for", "twice", str(path))
    lab.wait_mark("begin", "twice")
    cut_off(lab, lost)
    lab.wait_for(lambda: len(lab.written("begin", "twice")) == 2, "the peer runs it again")
    path.touch()
    lab.wait_for(lambda: len(lab.written("end", "twice")) == 2, "both have run it")
    assert lab.value(task_id) == "told twice"
    lost.send(signal.SIGCONT)
    assert lab.run("add", 1, 1) == 2
    assert not lab.dead()
    assert int(lab.redis.hget("opsq:totals:{celery}", "n:succeeded:proj.late_wait_for")) == 1
