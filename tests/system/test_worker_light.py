"""What a worker holds while it works: nothing is loaded that a plain broker and its results do not need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import lab as labs
from support.lab import Lab

from opsq.backends.chords import LOOK

TASKS = """
import sys

from opsq import signals

SELDOM = ("redis", "asyncio", "ssl")


def loaded():
    return " ".join(name for name in SELDOM if name in sys.modules) or "nothing"


@signals.worker_shutdown.connect
def in_parent(**_named):
    mark("parent", loaded())


@app.task
def in_child():
    add.delay(1, 2)
    return loaded()
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS, "light") as found:
        yield found


def test_neither_parent_nor_children_load_redis_py_while_they_work(lab: Lab) -> None:
    """Leases, events, Celery's leftovers, limits, chords that nobody looks after, a task that sends another one."""
    worker = lab.worker("-c", "2", "--lease", "1")
    assert lab.run("in_child") == "nothing"
    lab.wait_for(lambda: lab.redis.script_exists(LOOK.sha)[0], "it looks after chords", 20)
    assert worker.stop() == 0
    assert lab.wait_mark("parent", "nothing")
