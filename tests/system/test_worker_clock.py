"""A host whose clock is wrong, or jumps: what is due and what has expired goes by the broker's clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support import lab as labs
from support.lab import Lab
from support.world import World, compiler

HOUR_S = 3600.0
TASKS = """
@app.task(bind=True, max_retries=1)
def again(self, text):
    mark("try", text)
    if not self.request.retries:
        raise self.retry(countdown=1)


@app.task
def later(text):
    add.apply_async((1, 1), countdown=1, task_id=text)


@app.task(acks_late=True)
def late(text, seconds):
    mark("begin", text)
    time.sleep(seconds)
    mark("end", text)


@app.task(rate_limit=os.environ.get("RATE", "4/s"), rate_limit_scope="cluster")
def steady(text):
    mark("steady", text)
"""

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C compiler")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as opened:
        yield opened


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


@pytest.mark.parametrize("offset_s", [HOUR_S, -HOUR_S], ids=["ahead", "behind"])
def test_what_is_due_goes_by_the_brokers_clock(lab: Lab, world: World, offset_s: float) -> None:
    world.set_clock(offset_s)
    worker = lab.worker("-c", "1", "--lease", "1", **world.environment)
    word = "ahead of" if offset_s > 0 else "behind"
    assert f"3600.0 s {word} the broker's" in worker.output()
    begin = time.time()
    text = f"by {offset_s}"
    ids = [lab.send("add", 1, 1, countdown=1), lab.send("again", text), lab.send("add", 1, 1, expires=60)]
    lab.send("later", f"id-{offset_s}")
    expired = lab.send("add", 1, 1, expires=datetime.now(UTC) - timedelta(seconds=60))
    for task_id in (*ids, f"id-{offset_s}"):
        lab.result(task_id)
    lab.result(expired, "REVOKED")
    assert 0.9 < time.time() - begin < labs.soon(1)
    assert worker.stop() == 0


@pytest.mark.parametrize("offset_s", [HOUR_S, -HOUR_S], ids=["ahead", "behind"])
def test_what_waits_for_its_rate_goes_by_the_brokers_clock(lab: Lab, world: World, offset_s: float) -> None:
    """The next renewal, 10 s later, is not waited for, nor is Redis asked again and again until the time has come."""
    world.set_clock(offset_s)
    worker = lab.worker("-c", "1", "--lease", "30", RATE="60/m", **world.environment)
    text = f"rate by {offset_s}"
    lab.push("celery", *[("steady", text)] * 3)
    lab.wait_for(lambda: lab.written("steady", text), "the first one runs")
    before = scripts_run(lab)
    lab.wait_for(lambda: len(lab.written("steady", text)) == 3, "all have run")
    assert scripts_run(lab) - before < 60, "a look each 15 ms would be more than a hundred"
    assert worker.stop() == 0


def scripts_run(lab: Lab) -> int:
    stats: Any = lab.redis.info("commandstats")
    return int(stats["cmdstat_evalsha"]["calls"])


def test_what_cannot_be_put_into_its_lane_is_looked_at_again_soon(lab: Lab, world: World) -> None:
    world.set_clock(HOUR_S)
    worker = lab.worker("-c", "1", "--lease", "30", RATE="20/s", **world.environment)
    lane = "opsq:limited:{celery}:proj.steady"
    lab.redis.set(lane, "no list")
    lab.push("celery", ("steady", "stuck"), ("steady", "stuck"))
    lab.wait_for(lambda: lab.redis.zcard("opsq:delayed:{celery}"), "one can be put nowhere and is for later")
    lab.redis.delete(lane)
    lab.wait_for(lambda: len(lab.written("steady", "stuck")) == 2, "both have run")
    assert worker.stop() == 0


def test_of_two_workers_limits_the_newer_ones_count_whatever_their_clocks_say(lab: Lab, world: World) -> None:
    world.set_clock(HOUR_S)
    first = lab.worker("-c", "1", RATE="1/h", **world.environment)
    lab.push("celery", *[("steady", "of both")] * 3)
    lab.wait_for(lambda: lab.redis.llen("opsq:limited:{celery}:proj.steady") == 2, "two wait")
    assert first.stop() == 0
    second = lab.worker("-c", "1", RATE="20/s")
    lab.wait_for(lambda: len(lab.written("steady", "of both")) == 3, "all have run")
    assert second.stop() == 0


def test_a_clock_that_is_ahead_throws_no_dead_letter_away(lab: Lab, world: World) -> None:
    """Letters are kept for 90 days of the broker."""
    first = lab.worker("-c", "1")
    lab.result(lab.send("nobody_has_it", task_id="old"), "FAILURE")
    assert first.stop() == 0
    world.set_clock(100 * 86_400.0)
    second = lab.worker("-c", "1", **world.environment)
    lab.result(lab.send("nobody_has_it", task_id="new"), "FAILURE")
    assert lab.dead().keys() == {"old", "new"}
    assert abs(lab.dead()["new"]["time"] - time.time()) < 60
    assert second.stop() == 0


def test_what_is_due_is_right_at_once_after_a_jump(lab: Lab, world: World) -> None:
    """The next renewal, 10 s later, is not waited for."""
    worker = lab.worker("-c", "1", "--lease", "30", **world.environment)
    for offset_s in (HOUR_S, -HOUR_S):
        world.set_clock(offset_s)
        begin = time.time()
        lab.result(lab.send("again", f"after a jump of {offset_s}"))
        assert time.time() - begin < labs.soon(1)
    assert worker.stop() == 0


def test_a_clock_that_jumps_while_a_task_runs_starts_it_no_second_time(lab: Lab, world: World) -> None:
    worker = lab.worker("-c", "1", "--lease", "1", **world.environment)
    other = lab.worker("-c", "1", "--lease", "1", OPSQ_STATE_DIR=str(lab.folder / "other"))
    ids = [lab.send("late", f"jump {number}", 3) for number in range(2)]
    for number in range(2):
        lab.wait_mark("begin", f"jump {number}")
    for offset_s in (HOUR_S, -HOUR_S, 86_400.0, 0.0):
        world.set_clock(offset_s)
        time.sleep(0.4)
    for task_id in ids:
        lab.result(task_id)
    assert len(lab.written("begin", "jump 0")) == len(lab.written("begin", "jump 1")) == 1
    assert worker.stop() == other.stop() == 0
