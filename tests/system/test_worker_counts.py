"""What has come of how many messages is counted by the worker's turns, whatever came of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import lab as labs
from support.lab import Lab

from opsq.broker import stats
from opsq.broker.broker import Broker

TASKS = """

@app.task
def fails(text):
    raise ValueError(text)


@app.task(ignore_result=True)
def silent(number):
    return number


@app.task(bind=True, max_retries=1, default_retry_delay=0.01)
def again(self):
    if not self.request.retries:
        raise self.retry()
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS, "counts") as lab:
        lab.worker("-c", "1")
        yield lab


def counts(lab: Lab) -> dict[tuple[str, str], int]:
    """(task, state) -> how many, of this project's tasks."""
    totals = stats.totals(Broker(lab.url), ["celery"])
    return {(task.removeprefix("proj."), state): total.count for (_queue, task, state), total in totals.items()}


def test_every_end_is_counted_by_task_and_state(lab: Lab) -> None:
    for number in range(50):
        lab.send("silent", number, ignore_result=True)
    ids = [lab.send("add", 1, 1), lab.send("again")]
    failed = lab.send("fails", "no")
    expired = lab.send("nap", "never", expires=-1)
    for task_id in ids:
        lab.result(task_id)
    lab.result(failed, "FAILURE")
    lab.result(expired, "REVOKED")
    wanted = {
        ("silent", "succeeded"): 50,
        ("add", "succeeded"): 1,
        ("again", "retried"): 1,
        ("again", "succeeded"): 1,
        ("fails", "failed"): 1,
        ("nap", "expired"): 1,
    }
    lab.wait_for(lambda: counts(lab) == wanted, f"all is counted: {wanted}")
    minutes = stats.by_minute(Broker(lab.url), "celery", 2)
    assert sum(minute.counts.get("succeeded", 0) for minute in minutes) == 52
