"""Messages that would end or trip every worker, under other settings than the defaults: how often they come back, and
whether they are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from support import lab as labs
from support.broken_messages import ROWS
from support.lab import Lab

TASKS = """
app.conf.worker_discard_invalid_messages = os.environ.get("DISCARD") == "1"
app.conf.task_max_deliveries = int(os.environ["MOST"])


@app.task(bind=True, acks_late=True)
def kill_me(self, text, times):
    mark("begin", text)
    if (self.request.headers or {}).get("x-opsq-deliveries", 0) < times:
        os.kill(os.getpid(), 9)
"""
#: One of each kind: unknown task, content type that is refused, body that cannot be read, no JSON at all.
KINDS = [row for row in ROWS if row.is_dead]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as opened:
        yield opened


def test_a_message_comes_back_as_often_as_the_setting_says(lab: Lab) -> None:
    worker = lab.worker("-c", "1", MOST="2")
    task_id = lab.send("kill_me", "twice", 99)
    letter = lab.wait_for(lambda: lab.dead().get(task_id), "it is buried", 30)
    assert "it was started 2 times" in letter["reason"]
    assert len(lab.written("begin", "twice")) == 2
    assert worker.stop() == 0


def test_without_a_bound_it_comes_back_until_it_ends(lab: Lab) -> None:
    worker = lab.worker("-c", "1", MOST="0")
    task_id = lab.send("kill_me", "for ever", 7)
    lab.result(task_id, timeout=60)
    assert len(lab.written("begin", "for ever")) == 8
    assert task_id not in lab.dead()
    assert worker.stop() == 0


def test_what_cannot_be_run_is_thrown_away_as_celery_does_if_the_settings_say_so(lab: Lab) -> None:
    lab.redis.delete("opsq:dead:{celery}", "opsq:dead-index:{celery}")
    worker = lab.worker("-c", "1", MOST="5", DISCARD="1")
    ids = [str(uuid4()) for _ in KINDS]
    lab.redis.lpush("celery", *[row.make(task_id) for row, task_id in zip(KINDS, ids, strict=True)])
    lab.wait_for(lab.is_quiet, "nothing waits and nothing is in flight")
    assert lab.run("add", 1, 2) == 3
    assert lab.dead() == {}
    for row, task_id in zip(KINDS, ids, strict=True):
        if row.knows_id:
            assert lab.state(task_id) == row.state, row.label
    assert "is thrown away" in worker.output()
    assert worker.stop() == 0
