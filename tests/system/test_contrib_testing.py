"""Tests of programs: Celery's fixtures, a worker in a thread, `memory://`, run by a pytest of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from opsq import App, _state, chord, group
from opsq.contrib.testing.app import TestApp, setup_default_app
from opsq.contrib.testing.worker import start_worker, test_worker_started, test_worker_stopped
from opsq.exceptions import BrokerError, SoftTimeLimitExceeded

#: What stands in Celery's user guide, and in the tests of projects, after `opsq migrate-code`.
CONFTEST = """
import pytest

pytest_plugins = ("opsq.contrib.pytest",)


@pytest.fixture(scope="session")
def celery_config():
    return {"broker_url": "memory://", "result_backend": "cache+memory://", "task_default_queue": "mine"}


@pytest.fixture(scope="session")
def celery_includes():
    return ["proj"]


@pytest.fixture(scope="session")
def celery_worker_parameters():
    return {"queues": ("mine", "other")}
"""
PROJECT = """
from opsq import shared_task


@shared_task
def double(x):
    return 2 * x
"""
TESTS = """
import pytest
from opsq import current_app
from proj import double


def test_create_task(celery_app, celery_worker):
    @celery_app.task
    def mul(x, y):
        return x * y

    celery_worker.reload()
    assert mul.delay(4, 4).get(timeout=10) == 16


@pytest.mark.celery(result_expires=7)
def test_a_mark_changes_settings(celery_app):
    assert celery_app.conf.result_expires == 7
    assert celery_app.conf.task_default_queue == "mine"


@pytest.mark.usefixtures("celery_session_app", "celery_session_worker")
class TestSession:
    def test_shared(self):
        assert double.delay(4).get(timeout=10) == 8

    def test_other_queue(self):
        assert double.apply_async((5,), queue="other").get(timeout=10) == 10


def test_current(celery_app, depends_on_current_app):
    assert current_app.main == celery_app.main == "celery.tests"
"""


def run_pytest(folder: Path, **files: str) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-W", "error", "."]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True)


def test_celerys_fixtures_run_a_projects_tests(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, conftest=CONFTEST, proj=PROJECT, test_it=TESTS)
    assert "5 passed" in done.stdout, done.stdout + done.stderr


def test_the_trap_catches_who_asks_for_the_current_app(tmp_path: Path) -> None:
    trap = "\n\n@pytest.fixture(scope='session')\ndef use_celery_app_trap():\n    return True\n"
    tests = "from opsq import current_app\n\n\ndef test_it(celery_app):\n    current_app.main\n"
    done = run_pytest(tmp_path, conftest=CONFTEST + trap, proj=PROJECT, test_it=tests)
    assert "Test depends on current_app" in done.stdout
    assert "1 failed" in done.stdout


def test_who_does_not_ask_for_the_fixtures_has_none(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, test_it="def test_it(celery_app): ...\n")
    assert "fixture 'celery_app' not found" in done.stdout


# -- the worker in a thread -----------------------------------------------------------------------------------------


@pytest.fixture
def app(redis_url: str) -> Any:
    app = TestApp(broker=redis_url, backend=redis_url)
    with setup_default_app(app):
        yield app


def test_a_worker_in_a_thread_runs_tasks_and_workflows(app: App) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(bind=True, max_retries=2)
    def again(self: Any) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=0.01)
        return int(self.request.retries)

    @app.task
    def total(values: list[int]) -> int:
        return sum(values)

    told: list[Any] = []

    def receiver(sender: Any, worker: Any, **_: Any) -> None:
        told.append((sender, worker))

    test_worker_started.connect(receiver)
    test_worker_stopped.connect(receiver)
    with start_worker(app) as worker:
        assert add.delay(2, 2).get(timeout=10) == 4
        assert again.delay().get(timeout=10) == 2
        assert chord([add.s(1, 1), add.s(2, 2)])(total.s()).get(timeout=10) == 6
        assert group(add.s(number, 1) for number in range(100)).delay().get(timeout=10) == list(range(1, 101))
    assert told == [(app, worker), (app, worker)]
    assert not [thread for thread in threading.enumerate() if thread.name == "opsq-test-worker"]


def test_its_time_limits_hold(app: App) -> None:
    @app.task(soft_time_limit=0.1)
    def busy() -> None:
        while True:
            pass

    with start_worker(app, perform_ping_check=False), pytest.raises(SoftTimeLimitExceeded):
        busy.delay().get(timeout=10)


def test_several_tasks_run_at_once_if_it_is_so_wanted(app: App) -> None:
    barrier = threading.Barrier(3, timeout=10)

    @app.task
    def meet() -> int:
        return barrier.wait()

    with start_worker(app, pool="threads", concurrency=3):
        assert sorted(group(meet.s() for _ in range(3)).delay().get(timeout=10)) == [0, 1, 2]


def test_what_it_has_not_begun_stays_in_the_queue(app: App, redis_client: Any) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @app.task
    def wait() -> None:
        begun.set()
        go_on.wait(10)

    with start_worker(app, perform_ping_check=False) as worker:
        first = wait.delay()
        begun.wait(10)
        worker.stop()
        later = wait.delay()
        go_on.set()
    assert first.state == "SUCCESS"
    assert later.state == "PENDING"
    assert redis_client.llen("celery") == 1
    assert not redis_client.keys("opsq:inflight:*")
    assert not redis_client.zcard("opsq:consumers:{celery}")
    assert not redis_client.zcard("opsq:workers")


def test_a_worker_that_ends_too_late_is_told(app: App) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @app.task
    def wait() -> None:
        begun.set()
        go_on.wait(30)

    def run() -> None:
        with start_worker(app, shutdown_timeout=0.1):
            wait.delay()
            begun.wait(10)

    with pytest.raises(RuntimeError, match="shutdown_timeout"):
        run()
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "opsq-test-worker":
            thread.join(10)


@pytest.mark.usefixtures("app")
def test_a_worker_that_cannot_start_says_why(free_port: Any) -> None:
    other = TestApp(broker=f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(BrokerError, match="connection refused"), start_worker(other):
        pass


def test_the_apps_of_a_test_are_forgotten(redis_url: str) -> None:
    before, shared = _state.current_app_or_none(), set(_state.on_app_finalizers)
    app = TestApp(broker=redis_url)
    with setup_default_app(app):
        app.set_current()
        app.set_default()
        app.task(lambda: None, name="shared")
    assert _state.current_app_or_none() is before
    assert _state.on_app_finalizers == shared


# -- memory:// ------------------------------------------------------------------------------------------------------

MEMORY = """
import sys
from opsq import App
app = App("m", broker="memory://", backend="cache+memory://")
other = App("n", broker="memory://localhost/", backend="cache+memory://", set_as_current=False)
app.send_task("x", queue="q")
assert other.connection().default_channel.queue_declare("q", passive=True).message_count == 1
print(app.connection().as_uri(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["itself", "kill -9"])
def test_memory_is_a_redis_that_ends_with_its_process(end: str, wait_for: Any) -> None:
    process = subprocess.Popen([sys.executable, "-c", MEMORY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip().removeprefix("redis+socket://")).parent
    servers = [child for child in psutil.Process(process.pid).children(recursive=True) if "redis" in child.name()]
    assert len(servers) == 1
    if end == "kill -9":
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not servers[0].is_running(), what="the server has ended")
    wait_for(lambda: not folder.exists(), what="its folder is gone")
