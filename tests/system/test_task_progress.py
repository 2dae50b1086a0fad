"""How far a task says it is: stored while it runs, seen from outside, and never at the cost of the task."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from support import lab as labs
from support.lab import Lab

from opsq.broker import profile

TASKS = """
def wait_for(name):
    deadline = time.monotonic() + 20
    while not os.path.exists(name) and time.monotonic() < deadline:
        time.sleep(0.002)


@app.task(bind=True)
def steps(self):
    for number in self.track(range(4), note="pages"):
        if number == 3:
            mark("at-3", self.request.id)
            wait_for("go-" + self.request.id)
    return "all"


@app.task(bind=True)
def busy_loop(self):
    begin = time.monotonic()
    while time.monotonic() - begin < 1:
        self.progress(1, 1000)
    self.progress(1000, 1000)


@app.task(bind=True, ignore_result=True)
def unwanted(self):
    self.progress(1, 2)
    mark("unwanted", self.request.id)


@app.task(bind=True)
def by_hand(self):
    self.update_state(state="PROGRESS", meta={"current": 30, "total": 120, "status": "half asleep"})
    mark("by-hand", self.request.id)
    wait_for("go-" + self.request.id)


@app.task(bind=True)
def countless(self):
    self.progress(7)
    mark("countless", self.request.id)
    wait_for("go-" + self.request.id)


@app.task(bind=True)
def without_results(self):
    url, self.app.backend.url = self.app.backend.url, "redis://127.0.0.1:1/0"
    self.progress(1, 2)
    self.app.backend.url = url
    return "done all the same"


@app.task
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


HELD = []


@app.task
def leak():
    HELD.append(bytearray(b"x" * 8_000_000))
    time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        lab.worker("-c", "2", "-n", "w@here", "--lease", "1", name="worker", OPSQ_RESULT_BACKEND=lab.server.url(1))
        lab.app.conf.result_backend = lab.server.url(1)
        yield lab


def opsq(lab: Lab, *line: str) -> Any:
    """What a command prints as JSON."""
    environment = {**lab.environment, "OPSQ_RESULT_BACKEND": lab.server.url(1)}
    argv = [*labs.OPSQ, "-A", "proj", *line, "--json"]
    found = subprocess.run(
        argv, cwd=lab.folder, env=lab.spawn.environment(environment), capture_output=True, timeout=30
    )
    assert found.returncode == 0, found.stderr.decode()
    return json.loads(found.stdout)


def let_go(lab: Lab, task_id: str) -> None:
    (lab.folder / f"go-{task_id}").touch()
    assert lab.app.AsyncResult(task_id).get(timeout=10) in ("all", None)


def running(lab: Lab, task_id: str) -> dict[str, Any]:
    """The row of a task in `opsq tasks`, once the worker has told that it runs."""

    def row() -> dict[str, Any] | None:
        return next((each for each in opsq(lab, "tasks")["running"] if each["id"] == task_id), None)

    found: dict[str, Any] = lab.wait_for(row, "the worker tells what it runs")
    return found


def test_a_loop_tells_how_far_it_is_until_its_end(lab: Lab) -> None:
    task_id = lab.send("steps")
    lab.wait_mark("at-3", task_id)
    result = lab.app.AsyncResult(task_id)
    assert result.state == "PROGRESS"
    assert (result.info["total"], result.info["note"]) == (4, "pages")
    assert running(lab, task_id)["progress"]["total"] == 4
    let_go(lab, task_id)
    assert (result.state, result.info) == ("SUCCESS", "all")


def test_a_task_may_tell_as_often_as_it_likes(lab: Lab) -> None:
    task_id = labs.new_id()
    with lab.redis.pubsub() as heard:
        heard.subscribe(f"celery-task-meta-{task_id}")
        heard.get_message(timeout=5)
        lab.send("busy_loop", task_id=task_id)
        states: list[str] = []
        while "SUCCESS" not in states:
            said: Any = heard.get_message(timeout=10)
            states.append(json.loads(said["data"])["status"])
    assert 4 <= states.count("PROGRESS") <= 8


def test_nothing_is_left_of_a_task_whose_result_nobody_wants(lab: Lab) -> None:
    task_id = lab.send("unwanted")
    lab.wait_mark("unwanted", task_id)
    assert lab.app.AsyncResult(task_id).state == "PENDING"


@pytest.mark.parametrize(
    ("task", "progress"),
    [
        ("by_hand", {"current": 30, "total": 120, "note": "half asleep"}),
        ("countless", {"current": 7, "total": None, "note": None}),
    ],
)
def test_what_a_program_stores_by_hand_is_shown_too(lab: Lab, task: str, progress: dict[str, Any]) -> None:
    task_id = lab.send(task)
    lab.wait_mark(task.replace("_", "-"), task_id)
    assert running(lab, task_id)["progress"] == progress
    let_go(lab, task_id)


def test_who_watches_sees_at_once_what_has_begun_and_what_has_ended(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The workers are asked: their records are much older here."""
    with labs.opened(tmp_path_factory, TASKS, "watched") as lab:
        lab.worker("-c", "1", "-n", "w@here", "--lease", "60")
        argv = [*labs.OPSQ, "-A", "proj", "tasks", "--watch", "--json"]
        watch = lab.spawn(argv, name="watch", env=lab.environment, cwd=lab.folder)

        def shown() -> list[Any]:
            lines = watch.output().splitlines()
            return [row["id"] for row in json.loads(lines[-1])["running"]] if lines and lines[-1][-1] == "}" else []

        task_id = lab.send("by_hand")
        lab.wait_for(lambda: shown() == [task_id], "it is shown", timeout=9)
        assert json.loads(watch.output().splitlines()[-1])["running"][0]["progress"]["total"] == 120
        let_go(lab, task_id)
        lab.wait_for(lambda: shown() == [], "it is gone", timeout=9)
        watch.send(signal.SIGINT)
        assert watch.wait() == 130


def test_a_place_for_results_that_is_away_costs_no_task(lab: Lab) -> None:
    task_id = lab.send("without_results")
    assert lab.app.AsyncResult(task_id).get(timeout=20) == "done all the same"


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_the_profile_of_a_pool_that_runs_many_at_once(pool: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    with labs.opened(tmp_path_factory, TASKS, pool) as lab:
        lab.worker("-P", pool, "-c", "4")
        for _ in range(3):
            lab.run("burn", 0.05)
        lab.value(lab.send("nap", "x", 0.1))
        found = {each.task: each for each in profile.read(lab.app.broker, ["celery"])}
        burn, nap = found["proj.burn"], found["proj.nap"]
        assert (burn.runs, nap.runs) == (3, 1)
        assert burn.cpu_s > 0.04 > nap.cpu_s
        assert nap.p50_s > 0.09


def test_the_profile_tells_what_takes_cpu_and_what_grows(lab: Lab) -> None:
    ids = [lab.send("burn", 0.05) for _ in range(4)] + [lab.send("nap", "x", 0.05) for _ in range(4)]
    ids += [lab.send("leak") for _ in range(20)]
    for task_id in ids:
        lab.app.AsyncResult(task_id).get(timeout=20)
    rows = {row["task"]: row for row in opsq(lab, "tasks", "--profile")["profile"]}
    burn, nap, leak = rows["proj.burn"], rows["proj.nap"], rows["proj.leak"]
    assert (burn["runs"], nap["runs"], leak["runs"]) == (4, 4, 20)
    assert burn["cpu"] > 0.04
    assert nap["cpu"] < 0.02
    assert 0.045 < nap["p50"] <= nap["p99"] < 1
    assert leak["growth"] > 4_000_000 > nap["growth"]
