"""The pool asyncio: coroutines in one loop, functions beside it, whatever the mixture."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import lab as labs
from support.lab import Lab

TASKS = """
import asyncio
import contextvars
import signal
import threading

VALUE = contextvars.ContextVar("value", default="nobody")


@app.task(bind=True)
async def at_once(self, text):
    before = VALUE.get()
    VALUE.set(text)
    return [before, VALUE.get(), self.request.id]


@app.task
async def cancels_itself():
    asyncio.current_task().cancel()
    return "done"


@app.task
async def same_task_all_along():
    before = asyncio.current_task()
    async with asyncio.timeout(10):
        async with asyncio.TaskGroup() as group:
            inner = group.create_task(asyncio.sleep(0.01, "inner"))
    return [before is asyncio.current_task(), inner.result()]


@app.task
async def sleeps(text, path):
    mark("begin", text)
    while not os.path.exists(path):
        await asyncio.sleep(0.01)


@app.task
def waits(text, path):
    mark("begin", text)
    while not os.path.exists(path):
        time.sleep(0.01)


@app.task
async def blocks(text, path):
    mark("begin", text)
    while not os.path.exists(path):
        time.sleep(0.01)


@app.task
def thread():
    return threading.current_thread() is threading.main_thread()


@app.task
async def loop_thread():
    return threading.current_thread() is threading.main_thread()


if "TRACKED" in os.environ:

    @app.task(track_started=True)
    async def tracked(text):
        mark("begin", text)


@app.task
async def freeze(pid):
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(0.5)
    os.kill(pid, signal.SIGCONT)


@app.task(soft_time_limit=0.2)
async def limited(path):
    while not os.path.exists(path):
        await asyncio.sleep(0.01)
"""


@pytest.fixture(scope="module", params=["loop", "runners"])
def takes(request: pytest.FixtureRequest) -> str:
    """Who takes the tasks: runners, where it is stored that one has begun."""
    takes: str = request.param
    return takes


@pytest.fixture(scope="module")
def lab(takes: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        lab.worker("-P", "asyncio", "-c", "300", **({"TRACKED": "1"} if takes == "runners" else {}))
        yield lab


def together(lab: Lab, calls: list[tuple[str, str, str]]) -> None:
    """Messages in one batch; all of these tasks run at the same time."""
    lab.push("celery", *[("add", number, number) for number in range(200)], *calls)
    for _task, text, _path in calls:
        lab.wait_mark("begin", text, 30)


def test_coroutines_that_wait_for_nothing_have_contexts_of_their_own(lab: Lab) -> None:
    sent = [("proj.at_once", (str(number),)) for number in range(300)]
    results = lab.app.send_many(sent)
    for number, result in enumerate(results):
        assert result.get(timeout=20) == ["nobody", str(number), result.id]


def test_what_one_coroutine_does_to_its_asyncio_task_is_no_matter_of_the_next(lab: Lab) -> None:
    names = ["cancels_itself", "same_task_all_along"] * 30
    results = lab.app.send_many([(f"proj.{name}",) for name in names])
    assert [result.get(timeout=20) for result in results] == ["done", [True, "inner"]] * 30


def test_coroutines_and_functions_run_at_the_same_time_in_whatever_order_they_come(lab: Lab) -> None:
    path = str(lab.folder / "mixed")
    together(lab, [(("sleeps", "waits")[number % 2], f"mixed-{number}", path) for number in range(100)])
    together(lab, [(("waits", "sleeps")[number < 40], f"after-{number}", path) for number in range(60)])
    together(lab, [(("waits", "sleeps")[number > 20], f"before-{number}", path) for number in range(60)])
    (lab.folder / "mixed").touch()
    lab.wait_for(lab.is_quiet, "all have ended")


def test_functions_run_in_threads_and_coroutines_in_the_main_thread(lab: Lab) -> None:
    for _ in range(3):
        assert lab.run("thread") is False
        assert lab.run("loop_thread") is True


def test_functions_go_on_while_a_coroutine_blocks_the_loop_and_limits_hold_after_it(lab: Lab) -> None:
    path = lab.folder / "blocked"
    blocking = lab.send("blocks", "blocking", str(path))
    lab.wait_mark("begin", "blocking")
    late = lab.send("limited", str(lab.folder / "never"))
    assert [lab.run("add", number, 1) for number in range(20)] == [number + 1 for number in range(20)]
    assert lab.state(blocking) is None
    path.touch()
    assert lab.value(blocking) is None
    assert lab.result(late, "FAILURE")["result"]["exc_type"] == "SoftTimeLimitExceeded"


def test_the_loop_goes_on_while_that_a_task_has_begun_is_stored(lab: Lab, takes: str) -> None:
    if takes == "loop":
        pytest.skip("nothing is stored here")
    (worker,) = lab.spawn.running
    lab.push("celery", *[("at_once", f"{number}") for number in range(200)])
    lab.push("celery", ("freeze", lab.server.process.pid), ("tracked", "behind it"))
    lab.wait_mark("begin", "behind it", 30)
    lab.wait_for(lab.is_quiet, "all have ended", 30)
    assert "cannot store that" not in worker.output()
