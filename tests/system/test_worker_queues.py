"""Which queues a worker consumes, in which order, and what becomes of the messages of other workers' queues."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from support import lab as labs
from support.lab import Lab

from opsq.datastore import keys
from opsq.datastore.priorities import PRIORITIES

TASKS = """
app.conf.task_queues = ["celery", "mail", "slow"]


@app.task(ignore_result=True)
def tick(text):
    mark("tick", text)


@app.task
def where(text):
    from opsq import current_task

    return [os.getpid(), current_task.request.delivery_info["routing_key"]]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        yield lab


@pytest.fixture(autouse=True)
def _workers_end(lab: Lab) -> Iterator[None]:
    yield
    lab.end_workers()
    lab.redis.flushall()


def consumed(lab: Lab) -> set[str]:
    """The queues that have consumers."""
    return {key.decode().partition("{")[2].rstrip("}") for key in lab.redis.scan_iter("opsq:consumers:*")}


def ticks(lab: Lab) -> list[str]:
    return [mark.text for mark in lab.written("tick")]


@pytest.mark.parametrize(
    ("options", "queues"),
    [
        ([], {"celery", "mail", "slow"}),
        (["-Q", "mail"], {"mail"}),
        (["-Q", "mail,celery"], {"mail", "celery"}),
        (["-Q", "mail", "-Q", "other"], {"mail", "other"}),
        (["--queues=slow,new"], {"slow", "new"}),
        (["-X", "slow"], {"celery", "mail"}),
        (["--exclude-queues", "slow,mail"], {"celery"}),
        (["-Q", "a,b,c", "-X", "b"], {"a", "c"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_worker_consumes_the_queues_it_is_told(lab: Lab, options: list[str], queues: set[str]) -> None:
    running = lab.worker("-c", "1", *options)
    assert consumed(lab) == queues
    for name in ("celery", "mail", "slow", "other", "a", "b"):
        task_id = lab.send("where", name, queue=name)
        if name in queues:
            assert lab.value(task_id)[1] == name
        else:
            assert lab.depth(name) == 1
    (line,) = [line for line in running.output().splitlines() if line.startswith("  queues")]
    assert set(line.removeprefix("  queues").replace(" ", "").split(",")) == queues


def test_priorities_are_celerys_four_lists_the_lowest_number_first(lab: Lab) -> None:
    for priority in (9, 8, 6, 5, 3, 2, 0):
        for number in range(3):
            lab.send("tick", f"priority-{priority}-{number}", priority=priority, ignore_result=True)
    assert [int(lab.redis.llen(name)) for name in PRIORITIES.lists("celery")] == [6, 6, 6, 3]  # type: ignore[arg-type]
    lab.worker("-c", "1", "-l", "warning", ready=False)

    def done() -> list[str]:
        return [text.removeprefix("priority-") for text in ticks(lab) if text.startswith("priority-")]

    lab.wait_for(lambda: len(done()) == 21, "all are done")
    steps = [0 if int(text[0]) < 3 else int(text[0]) // 3 * 3 for text in done()]
    assert steps == sorted(steps)
    assert [text for text in done() if text.startswith("9")] == ["9-0", "9-1", "9-2"]


def test_a_long_queue_does_not_starve_another_one(lab: Lab) -> None:
    lab.push("mail", *[("nap", f"long-{number}", 0.002) for number in range(400)])
    lab.worker("-c", "1", "-Q", "mail,celery", "-l", "warning", ready=False)
    lab.wait_mark("end", "long-20")
    lab.push("celery", ("tick", "short"))
    lab.wait_mark("tick", "short")
    assert not lab.written("end", "long-399")
    lab.wait_mark("end", "long-399")
    assert [mark.text for mark in lab.written("end") if mark.text.startswith("long-")] == [
        f"long-{number}" for number in range(400)
    ]


def test_workers_on_different_queues_run_only_their_own(lab: Lab) -> None:
    lab.worker("-c", "1", "-Q", "mail", "-n", "mail@here", name="mail")
    lab.worker("-c", "1", "-Q", "celery", "-n", "main@here", name="main")
    mail = {tuple(lab.run("where", "", queue="mail")) for _ in range(5)}
    main = {tuple(lab.run("where", "")) for _ in range(5)}
    assert len(mail) == len(main) == 1
    assert not mail & main


def test_a_queue_is_known_as_soon_as_a_worker_consumes_it(lab: Lab) -> None:
    lab.worker("-c", "1", "-Q", "brand-new")
    assert b"brand-new" in lab.redis.smembers("opsq:queues")  # type: ignore[operator]
    assert lab.redis.smembers("_kombu.binding.brand-new")


def test_a_worker_that_has_ended_leaves_no_consumers(lab: Lab) -> None:
    running = lab.worker("-c", "2")
    assert lab.consumers() == 2
    assert lab.redis.zcard("opsq:workers") == 1
    assert running.stop() == 0
    assert consumed(lab) == set()
    assert not list(lab.redis.scan_iter("opsq:worker*"))


def test_as_many_children_as_cpus_unless_told(lab: Lab) -> None:
    import os

    running = lab.worker()
    assert lab.consumers() == len(os.sched_getaffinity(0))
    assert running.stop() == 0
    lab.worker("--concurrency=3")
    assert lab.consumers() == 3


def test_children_work_side_by_side(lab: Lab) -> None:
    lab.worker("-c", "4")
    began = time.monotonic()
    ids = [lab.send("nap", f"side-{number}", 0.5) for number in range(4)]
    assert len({lab.value(task_id) for task_id in ids}) == 4
    assert time.monotonic() - began < 10


def test_a_paused_queue_waits_and_the_others_do_not(lab: Lab) -> None:
    lab.worker("-c", "1", "-Q", "mail,celery")
    lab.redis.set(keys.paused("mail"), 1)
    waiting = lab.send("where", "", queue="mail")
    assert lab.run("where", "")
    assert lab.depth("mail") == 1
    lab.redis.delete(keys.paused("mail"))
    assert lab.value(waiting)[1] == "mail"


def test_messages_that_were_there_before_the_worker_run_in_their_order(lab: Lab) -> None:
    texts = [f"before-{number}" for number in range(500)]
    lab.push("celery", *[("tick", text) for text in texts])
    lab.worker("-c", "1", "-l", "warning", ready=False)
    lab.wait_for(lambda: "before-499" in ticks(lab), "all are done")
    assert [text for text in ticks(lab) if text.startswith("before-")] == texts
