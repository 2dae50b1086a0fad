"""Which queue a worker takes from first, as its settings say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from support import lab as labs
from support.lab import Lab

TASKS = """
import json

app.conf.task_queues = ["mail", "slow"]
app.conf.update(json.loads(os.environ["SETTINGS"]))


@app.task(ignore_result=True)
def tick(text, seconds=0.0):
    time.sleep(seconds)
    mark("tick", text)
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


def fill(lab: Lab, name: str, count: int, seconds: float = 0.0) -> None:
    for queue in ("mail", "slow"):
        lab.push(queue, *[("tick", f"{name}-{queue}", seconds) for _ in range(count)])


def ticks(lab: Lab, name: str) -> list[str]:
    """From which queues tasks have run so far."""
    return [mark.text.partition("-")[2] for mark in lab.written("tick") if mark.text.startswith(f"{name}-")]


@pytest.mark.parametrize(("name", "seconds", "count"), [("quick", 0.0, 3000), ("long", 0.003, 300)])
def test_weights_hold_in_what_has_run(lab: Lab, name: str, seconds: float, count: int) -> None:
    fill(lab, name, count, seconds)
    lab.worker("-c", "1", "-l", "warning", ready=False, SETTINGS='{"worker_queue_order": {"mail": 3}}')
    lab.wait_for(lambda: len(ticks(lab, name)) == 2 * count, "all are done", 20)
    # As long as both had something: until three quarters of the first one's share have run.
    counts = Counter(ticks(lab, name)[: count // 3 * 4])
    assert counts["mail"] / counts.total() == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize(
    "settings",
    ['{"worker_queue_order": "strict"}', '{"broker_transport_options": {"queue_order_strategy": "priority"}}'],
)
def test_a_strict_order_empties_the_first_queue_first(lab: Lab, settings: str) -> None:
    fill(lab, settings, 400)
    lab.worker("-c", "1", "-l", "warning", ready=False, SETTINGS=settings)
    lab.wait_for(lambda: len(ticks(lab, settings)) == 800, "all are done")
    assert ticks(lab, settings) == ["mail"] * 400 + ["slow"] * 400


def test_the_order_of_the_command_line_is_the_strict_one(lab: Lab) -> None:
    fill(lab, "line", 100)
    lab.worker("-c", "1", "-Q", "slow,mail", ready=False, SETTINGS='{"worker_queue_order": "strict"}')
    lab.wait_for(lambda: len(ticks(lab, "line")) == 200, "all are done")
    assert ticks(lab, "line") == ["slow"] * 100 + ["mail"] * 100


def test_an_order_that_is_none_ends_the_worker_with_a_sentence(lab: Lab) -> None:
    running = lab.worker("-c", "1", ready=False, SETTINGS='{"worker_queue_order": "by chance"}')
    lab.wait_for(lambda: not running.alive(), "it ends")
    assert "cannot use worker_queue_order = 'by chance'" in running.output()
    assert "Traceback" not in running.output()
