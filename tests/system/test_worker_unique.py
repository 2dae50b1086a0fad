"""When the key of a unique task is free again, and that the last of several debounced calls runs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import lab as labs
from support.lab import OPSQ, Lab

TASKS = """
from opsq.exceptions import Ignore, Reject

app.conf.task_max_deliveries = 2
app.conf.task_acks_on_failure_or_timeout = True


@app.task(unique="{text}")
def only(text, seconds=0.0):
    mark("begin", text)
    time.sleep(seconds)


@app.task(unique=True)
def fails():
    raise ValueError("no")


@app.task(unique=True, bind=True, max_retries=3)
def tries(self, text):
    mark("try", text)
    if self.request.retries < 2:
        raise self.retry(countdown=0.3)


@app.task(unique=True, bind=True, acks_late=True)
def ends(self, how):
    mark("begin", how)
    if how == "ignored":
        raise Ignore()
    if how == "rejected":
        raise Reject("no", requeue=False)
    if how == "requeued" and not self.request.delivery_info.get("redelivered") and not os.path.exists("requeued"):
        open("requeued", "w").close()
        raise Reject("again", requeue=True)
    if how == "requeued":
        time.sleep(1)


@app.task(unique=True, time_limit=0.3)
def endless():
    time.sleep(30)


@app.task(unique="{document}", debounce=0.5)
def index(document, text):
    mark("index", text)


@app.task(unique=True, acks_late=True)
def dies():
    mark("begin", "dies")
    os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        lab.worker("-c", "1", name="worker")
        yield lab


def keys(lab: Lab) -> list[bytes]:
    return list(lab.redis.scan_iter("opsq:unique:*"))


def send(lab: Lab, task: str, *args: Any, **options: Any) -> str:
    """A unique call under the key `k`, as a client that does not know the task sends it."""
    return lab.send(task, *args, unique_key="k", **options)


def is_free(lab: Lab) -> None:
    lab.wait_for(lambda: not keys(lab), "the key is free")


def test_a_key_is_held_while_the_task_waits_or_runs_and_free_when_it_has_ended(lab: Lab) -> None:
    first = send(lab, "only", "held", 0.5)
    lab.wait_mark("begin", "held")
    assert send(lab, "only", "held") == first
    lab.result(first)
    is_free(lab)
    second = send(lab, "only", "held")
    assert second != first
    lab.result(second)
    assert len(lab.written("begin", "held")) == 2


@pytest.mark.parametrize(
    ("task", "arguments", "options", "state"),
    [
        ("fails", (), {}, "FAILURE"),
        ("endless", (), {}, "FAILURE"),
        ("not_there", (), {}, "FAILURE"),
        ("only", (), {}, "FAILURE"),
        ("only", ("expired",), {"expires": -1}, "REVOKED"),
        ("dies", (), {}, "FAILURE"),
        ("ends", ("rejected",), {}, None),
        ("ends", ("ignored",), {}, None),
    ],
    ids=lambda value: str(value),
)
def test_however_it_ends_the_key_is_free(
    lab: Lab, task: str, arguments: tuple[Any, ...], options: dict[str, Any], state: str | None
) -> None:
    first = send(lab, task, *arguments, **options)
    if state is not None:
        lab.result(first, state)
    else:
        lab.wait_for(lambda: lab.is_quiet(), "it has ended")
    is_free(lab)


def test_a_key_is_kept_over_retries(lab: Lab) -> None:
    first = send(lab, "tries", "retried")
    for tries in (1, 2):
        lab.wait_for(lambda tries=tries: len(lab.written("try", "retried")) == tries, "a try")  # type: ignore[misc]
        assert send(lab, "tries", "retried") == first
    lab.result(first)
    is_free(lab)
    assert len(lab.written("try", "retried")) == 3


def test_a_task_that_gives_itself_back_keeps_its_key(lab: Lab) -> None:
    first = send(lab, "ends", "requeued")
    lab.wait_for(lambda: len(lab.written("begin", "requeued")) == 2, "it runs again")
    assert send(lab, "ends", "requeued") == first
    lab.result(first)
    is_free(lab)


def test_a_key_that_is_another_calls_by_now_is_left_alone(lab: Lab) -> None:
    first = send(lab, "only", "slow", 0.5)
    lab.wait_mark("begin", "slow")
    lab.redis.set(keys(lab)[0], "another", ex=60)
    lab.result(first)
    lab.wait_for(lab.is_quiet, "it is settled")
    assert lab.redis.get(keys(lab)[0]) == b"another"
    lab.redis.delete(*keys(lab))


def test_a_key_is_free_when_the_worker_is_killed_while_the_task_runs(lab: Lab) -> None:
    worker = lab.worker("-c", "1", "-Q", "doomed", "-n", "doomed@h", name="doomed")
    first = send(lab, "only", "killed", 60, queue="doomed")
    lab.wait_mark("begin", "killed")
    os.kill(worker.pid, signal.SIGKILL)
    assert send(lab, "only", "killed", queue="doomed") == first
    lab.worker("-c", "1", "-Q", "doomed", "-n", "doomed@h", name="successor")
    lab.result(first, "FAILURE")
    is_free(lab)
    lab.redis.delete("opsq:dead:{doomed}", "opsq:dead-index:{doomed}")


def test_the_last_of_several_calls_runs_once_after_some_quiet(lab: Lab) -> None:
    ids = []
    for text in ("one", "two", "three"):
        ids.append(lab.send("index", 1, text, unique_key="document-1", debounce=0.5))
        last = time.time()
    assert len(set(ids)) == 1
    mark = lab.wait_mark("index", "three")
    assert mark.time >= last + 0.4
    assert not lab.written("index", "one")
    assert not lab.written("index", "two")
    lab.result(ids[0])
    again = lab.send("index", 1, "four", unique_key="document-1", debounce=0.1)
    assert again not in ids
    lab.wait_mark("index", "four")


def test_a_producer_that_is_killed_leaves_message_and_key_or_neither(lab: Lab) -> None:
    program = (
        "import sys\nfrom opsq import App\napp = App(broker=sys.argv[1])\nn = 0\n"
        "while True:\n    n += 1\n    app.send_task('proj.add', (n, n), unique_key=str(n), queue='nobody')\n"
    )
    for _ in range(3):
        producer = subprocess.Popen([OPSQ[0], "-c", program, lab.url], env={**os.environ, "PYTHONPATH": os.getcwd()})
        count = int(lab.redis.llen("nobody"))
        lab.wait_for(lambda: lab.redis.llen("nobody") > count + 20, "some are sent")  # noqa: B023
        producer.kill()
        producer.wait()
    assert lab.redis.llen("nobody") == len(keys(lab))
    lab.redis.delete("nobody", *keys(lab))
