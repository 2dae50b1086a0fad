"""Ten priorities on lists of their own, as `broker_transport_options` say: sent, taken, shown, put back and moved."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import lab as labs
from support.lab import OPSQ, Lab

from opsq import App
from opsq.datastore.priorities import PRIORITIES, Priorities

OPTIONS = {"priority_steps": list(range(10)), "sep": ":"}
TASKS = f"""
app.conf.broker_transport_options = {OPTIONS!r}


@app.task(ignore_result=True)
def tick(text):
    mark("tick", text)


@app.task(bind=True, acks_late=True, max_retries=1)
def again(self, text):
    mark("tick", text)
    if not self.request.retries:
        raise self.retry(countdown=0.1, priority=7)


@app.task
def boom():
    raise ValueError("boom")
"""
LISTS = ["celery", *(f"celery:{step}" for step in range(1, 10))]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        lab.app.conf.broker_transport_options = OPTIONS
        yield lab


@pytest.fixture(autouse=True)
def _workers_end(lab: Lab) -> Iterator[None]:
    yield
    lab.end_workers()
    lab.redis.flushall()


def opsq(lab: Lab, *words: str) -> Any:
    """What a command says in JSON."""
    environment = lab.spawn.environment({"OPSQ_BROKER_URL": lab.url, "MARKS": "/dev/null"})
    done = subprocess.run(
        [*OPSQ, "-A", "proj", "--json", *words],
        cwd=lab.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def texts(lab: Lab) -> list[str]:
    return [mark.text for mark in lab.written("tick")]


def test_ten_priorities_are_taken_in_their_order(lab: Lab) -> None:
    for priority in (9, 4, 0, 7, 1, 8, 2, 6, 3, 5):
        lab.send("tick", f"order-{priority}", priority=priority, ignore_result=True)
    assert [lab.redis.llen(name) for name in LISTS] == [1] * 10
    lab.worker("-c", "1", ready=False)
    lab.wait_for(lambda: len([text for text in texts(lab) if text.startswith("order")]) == 10, "all are done")
    assert [text for text in texts(lab) if text.startswith("order")] == [f"order-{number}" for number in range(10)]


def test_a_binding_has_the_separator_too(lab: Lab) -> None:
    lab.send("tick", "", queue="fresh")
    assert lab.redis.smembers("_kombu.binding.fresh") == {b"fresh::fresh"}


def test_who_does_not_know_the_separator_is_answered_too(lab: Lab) -> None:
    lab.worker("-c", "1")
    stranger = App("stranger", broker=lab.url, set_as_current=False)
    for app in (lab.app, stranger):
        (reply,) = app.control.ping(timeout=10, limit=1)
        assert list(reply.values()) == [{"ok": "pong"}]


def test_what_waits_is_counted_shown_and_thrown_away_in_all_ten(lab: Lab) -> None:
    for priority in range(10):
        lab.send("tick", f"shown-{priority}", priority=priority)
    (row,) = opsq(lab, "queues")["queues"]
    assert row["by_priority"] == {str(step): 1 for step in range(10)}
    found = opsq(lab, "queues", "peek", "celery")["messages"]
    assert [message["args"] for message in found] == [f"('shown-{number}',)" for number in range(10)]
    assert opsq(lab, "queues", "purge", "celery", "--yes")["purged"] == 10
    assert not lab.redis.exists(*LISTS)


def test_what_is_for_later_given_back_or_dead_returns_to_its_own_list(lab: Lab) -> None:
    lab.worker("-c", "1")
    lab.send("tick", "later", priority=4, countdown=0.3, ignore_result=True)
    lab.send("again", "again", priority=1, ignore_result=True)
    lab.wait_for(lambda: texts(lab).count("again") == 2, "it was run again")
    lab.wait_mark("tick", "later")
    lab.redis.set("opsq:paused:{celery}", 1)
    lab.send("tick", "paused", priority=4, countdown=0.3, ignore_result=True)
    lab.wait_for(lambda: lab.redis.llen("celery:4") == 1, "what is due is in its list")
    lab.redis.delete("opsq:paused:{celery}")
    lab.wait_mark("tick", "paused")
    lab.end_workers()
    lab.redis.lpush("celery:8", b"no message")
    lab.worker("-c", "1")
    lab.wait_for(lab.dead, "the dead letter")
    lab.end_workers()
    (letter,) = lab.dead()
    opsq(lab, "dead", "requeue", letter)
    assert lab.redis.lrange("celery:8", 0, -1) == [b"no message"]
    lab.redis.delete("celery:8")


def test_messages_given_back_in_the_middle_of_a_batch_keep_their_lists(lab: Lab) -> None:
    for number in range(40):
        lab.send("tick", f"back-{number}", priority=5, ignore_result=True)
    lab.send("nap", "slow", 3, priority=4)
    running = lab.worker("-c", "1", ready=False)
    lab.wait_mark("begin", "slow")
    lab.wait_for(lambda: lab.redis.llen("celery:5") == 40, "the others were given back")
    assert running.stop() == 0


def test_kombus_clients_use_the_same_lists(lab: Lab, celery_python: Path) -> None:
    for steps in (list(range(10)), [0, 5], [2, 4], [0, 3, 6, 9]):
        lab.redis.flushall()
        options = {"priority_steps": steps, "sep": ":"}
        program = (
            "import sys, json, celery\n"
            "app = celery.Celery(broker=sys.argv[1], broker_transport_options=json.loads(sys.argv[2]))\n"
            "for priority in (*range(10), 12, -3): app.send_task('x', priority=priority)\n"
        )
        subprocess.run([celery_python, "-c", program, lab.url, json.dumps(options)], check=True, timeout=60)
        lists = {key: lab.redis.llen(key) for key in lab.redis.scan_iter() if lab.redis.type(key) == b"list"}
        lab.redis.flushall()
        lab.app.conf.broker_transport_options = options
        vars(lab.app).pop("broker", None)
        for priority in (*range(10), 12, -3):
            lab.send("x", priority=priority)
        ours = {key: lab.redis.llen(key) for key in lab.redis.scan_iter() if lab.redis.type(key) == b"list"}
        assert ours == lists
    lab.app.conf.broker_transport_options = OPTIONS
    vars(lab.app).pop("broker", None)


def test_steps_that_are_none_are_an_error_that_says_so() -> None:
    from opsq.exceptions import ImproperlyConfigured

    for wrong in ({"priority_steps": [0, 10]}, {"priority_steps": ["0"]}, {"sep": 3}):
        with pytest.raises(ImproperlyConfigured, match="cannot use priority_steps"):
            Priorities.of(wrong)
    assert Priorities.of({"priority_steps": [9, 0, 3]}).steps == (0, 3, 9)
    assert Priorities.of(None) == PRIORITIES
