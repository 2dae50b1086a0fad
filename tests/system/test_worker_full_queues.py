"""What the end of a task sends is never refused and never waits, although its queue is full; calls in its body are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import lab as labs
from support.lab import Lab

from opsq import chain, group, signature

TASKS = """
from opsq import group
from opsq.exceptions import QueueFull

app.conf.task_queues = {
    "celery": None,
    "full": {"max_length": 1, "overflow": "block", "overflow_timeout": None},
    "refusing": {"max_length": 1},
}


@app.task(unique="{text}")
def only(text):
    mark("only", text)


@app.task(bind=True)
def become(self, count):
    raise self.replace(group(only.si(str(number)).set(queue="full") for number in range(count)))


@app.task
def call(queue):
    try:
        add.apply_async((1, 2), queue=queue)
    except QueueFull as error:
        mark("refused", str(error.sent))
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        lab.worker("-c", "1", "-Q", "celery", name="worker")
        for queue in ("full", "refusing"):
            lab.send("add", 0, 0, queue=queue)
        yield lab


def test_steps_callbacks_and_groups_go_into_a_full_queue(lab: Lab) -> None:
    before = lab.depth("full")
    members = group(signature("proj.add", (number,), options={"queue": "full"}, app=lab.app) for number in range(3))
    chain(signature("proj.add", (1, 2), app=lab.app), members).apply_async()
    callback = signature("proj.only", ("linked",), options={"queue": "full"}, immutable=True, app=lab.app)
    lab.send("add", 1, 2, link=callback)
    lab.send("become", 4)
    assert lab.run("add", 3, 4) == 7
    assert lab.depth("full") == before + 3 + 1 + 4


def test_a_callback_is_sent_although_its_key_is_taken(lab: Lab) -> None:
    before = lab.depth("full")
    for _ in range(2):
        lab.send(
            "add", 1, 2, link=signature("proj.only", ("twice",), options={"queue": "full"}, immutable=True, app=lab.app)
        )
    assert lab.run("add", 3, 4) == 7
    assert lab.depth("full") == before + 2


def test_a_call_in_the_body_of_a_task_is_one_like_any_other(lab: Lab) -> None:
    lab.send("call", "refusing")
    lab.wait_mark("refused", "0")
    assert lab.depth("refusing") == 1
