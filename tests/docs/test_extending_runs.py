"""What docs/extending.md shows is done here, in real workers and beats."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import documents
from support.processes import Running, Spawner
from support.worker_project import children_of

from opsq import App, chord

PAGE = documents.ROOT / "docs" / "extending.md"
OPSQ = Path(sys.executable).parent / "opsq"
HEAD = documents.files(PAGE)["shelf.py"].partition("app = Celery")[0]


@pytest.fixture
def place(tmp_path: Path, redis_url: str, spawn: Spawner, wait_for: Callable[..., Any]) -> Any:
    """A folder with the programs; `place(*words, ready=)` starts one of opsq's processes there."""
    for name, text in documents.files(PAGE).items():
        (tmp_path / name).write_text(text if name == "shelf.py" else HEAD + text)

    def start(*words: str, ready: str = " ready.", **environment: str) -> Running:
        env = {"OPSQ_BROKER_URL": redis_url, "PYTHONPATH": str(tmp_path), **environment}
        running = spawn([OPSQ, *words], env=env, cwd=tmp_path)
        wait_for(lambda: not ready or ready in running.output() or not running.alive(), timeout=30, what=ready)
        assert running.alive(), running.output()
        return running

    return start


@pytest.fixture
def app(redis_url: str) -> App:
    return App("client", broker=redis_url, backend=redis_url, set_as_current=False)


def test_a_task_class_keeps_its_state_and_hears_of_failures(place: Any, app: App, tmp_path: Path) -> None:
    place("-A", "shelf", "worker", "-c", "1", "-l", "info")
    values = [app.send_task("shelf.used").get(timeout=10) for _ in range(3)]
    assert values == [1, 2, 3]
    failed = app.send_task("shelf.used", (True,))
    with pytest.raises(ValueError, match="no"):
        failed.get(timeout=10)
    assert (tmp_path / "failed").read_text() == f"{failed.id} ValueError('no')"


def test_a_class_of_requests_hears_of_failures_and_limits(place: Any, app: App, tmp_path: Path, wait_for: Any) -> None:
    place("-A", "shelf_requests", "worker", "-c", "1", "-l", "info")
    wrong = app.send_task("shelf_requests.wrong")
    assert isinstance(wrong.get(timeout=10, propagate=False), KeyError)
    assert (tmp_path / "told").read_text() == f"{wrong.id} KeyError('wrong')"
    slow = app.send_task("shelf_requests.slow")
    slow.get(timeout=10, propagate=False)
    wait_for(lambda: slow.id in (tmp_path / "told").read_text(), what="it is told of the killed one")
    assert (tmp_path / "timed-out").read_text() == "shelf_requests.slow soft=False after 0.2"


def test_logs_are_set_up_by_the_program(place: Any, app: App, tmp_path: Path, wait_for: Callable[..., Any]) -> None:
    running = place("-A", "shelf_logs", "worker", "-c", "1", "-l", "info", ready="")
    log = tmp_path / "mine.log"
    wait_for(lambda: log.exists() and "ready." in log.read_text(), timeout=30)
    assert app.send_task("shelf.used").get(timeout=10) == 1
    wait_for(lambda: "shelf.used" in log.read_text())
    assert all(line.startswith("mine ") for line in log.read_text().splitlines())
    assert "ready." not in running.output()


def test_results_are_kept_where_the_program_says(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    place("-A", "shelf_results", "worker", "-c", "1", "-l", "info")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = App("client", broker=redis_url, backend="shelf_results:Files", set_as_current=False)
    first = mine.send_task("shelf.used")
    assert first.get(timeout=10) == 1
    assert json.loads((tmp_path / "results" / f"celery-task-meta-{first.id}").read_text())["result"] == 1
    failed = mine.send_task("shelf.used", (True,))
    with pytest.raises(ValueError, match="no"):
        failed.get(timeout=10)
    call = mine.signature("shelf.used")
    assert chord([call, call], mine.signature("celery.accumulate", kwargs={"index": 0}))().get(timeout=10) == [3, 4]
    assert not mine.broker.client.keys("celery-task-meta-*")
    first.forget()
    assert first.state == "PENDING"
    with pytest.raises(mine.AsyncResult("x").TimeoutError):
        mine.AsyncResult("nobody").get(timeout=0.05)


def test_a_place_for_results_that_fails_is_waited_for(
    place: Any, tmp_path: Path, app: App, wait_for: Callable[..., Any]
) -> None:
    (tmp_path / "results").write_text("in the way")
    worker = place("-A", "shelf_results", "worker", "-c", "1", "-l", "info")
    sent = app.send_task("shelf.used")
    wait_for(lambda: "lost the broker" in worker.output() or "results" in worker.output(), timeout=20)
    (tmp_path / "results").unlink()
    wait_for(lambda: (tmp_path / "results" / f"celery-task-meta-{sent.id}").exists(), timeout=20)


def test_the_schedule_comes_from_where_the_program_says(
    place: Any, tmp_path: Path, app: App, wait_for: Callable[..., Any]
) -> None:
    schedule = tmp_path / "schedule.json"
    schedule.write_text(json.dumps({"first": {"task": "shelf.used", "schedule": 0.1}}))
    beat = place("-A", "shelf", "beat", "-S", "shelf_schedule:FromFile", "-l", "info", ready="beat: Starting")
    wait_for(lambda: app.broker.client.llen("celery") > 1, timeout=20, what="the first entry runs")
    schedule.write_text("not JSON")
    wait_for(lambda: "its schedule stays as it was" in beat.output(), timeout=20)
    schedule.write_text(json.dumps({"second": {"task": "shelf.other", "schedule": 0.1}}))
    wait_for(lambda: any(b"shelf.other" in raw for raw in app.broker.client.lrange("celery", 0, 5)), timeout=20)
    beat.stop()
    app.broker.client.delete("celery")


@pytest.mark.parametrize(
    ("name", "why"),
    [("nowhere:Class", "No module named"), ("shelf:WithConnection", "no subclass of opsq.beat.scheduler")],
)
@pytest.mark.usefixtures("place")
def test_a_scheduler_that_cannot_be_used_is_one_sentence(
    spawn: Spawner, tmp_path: Path, redis_url: str, name: str, why: str
) -> None:
    for words in (("beat", "-S", name), ("worker", "-B", "--scheduler", name)):
        argv = [OPSQ, "-A", "shelf", *words]
        done = spawn(argv, env={"OPSQ_BROKER_URL": redis_url, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
        assert done.wait(30) == 2, done.output()
        assert why in done.output()


def test_a_worker_grows_when_the_program_says(
    place: Any, app: App, wait_for: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "shelf_scale.py").write_text(
        (tmp_path / "shelf_scale.py").read_text()
        + "\n\n@app.task\ndef nap(seconds):\n    import time\n    time.sleep(seconds)\n"
    )
    worker = place("-A", "shelf_scale", "worker", "--autoscale", "3,1", "-Q", "celery,urgent", "-l", "info")
    for _ in range(3):
        app.send_task("shelf_scale.nap", (6,))
    until = time.monotonic() + 1.5  # five times as long as the default waits
    while time.monotonic() < until:
        assert len(alive(worker)) == 1
        time.sleep(0.05)
    app.send_task("shelf_scale.nap", (6,), queue="urgent")
    wait_for(lambda: len(alive(worker)) > 1, timeout=10, what="it has grown")
    for child in alive(worker):
        child.kill()
    app.broker.client.delete("celery", "urgent")


@pytest.mark.usefixtures("place")
def test_an_autoscaler_that_cannot_be_used_is_one_sentence(spawn: Spawner, tmp_path: Path, redis_url: str) -> None:
    env = {
        "OPSQ_BROKER_URL": redis_url,
        "CELERY_WORKER_AUTOSCALER": "shelf:WithConnection",
        "PYTHONPATH": str(tmp_path),
    }
    done = spawn([OPSQ, "-A", "shelf", "worker", "--autoscale", "2,1"], env=env, cwd=tmp_path)
    assert done.wait(30) == 2
    assert "cannot use worker_autoscaler = 'shelf:WithConnection': it is no subclass of" in done.output()


def alive(worker: Running) -> list[psutil.Process]:
    return [child for child in children_of(worker) if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
