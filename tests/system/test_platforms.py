"""Where there is no fork, no fcntl and no Unix sockets: the package, its commands, and a worker in one process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import elsewhere
from support.lab import Lab, opened

ELSEWHERE = [sys.executable, elsewhere.__file__]

TASKS = """
@app.task(soft_time_limit=0.2)
def busy():
    while True:
        pass


@app.task
def busy_for(seconds):
    mark("begin", "busy_for")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


@app.task(bind=True, max_retries=1)
def again(self):
    if not self.request.retries:
        raise self.retry(countdown=0.01)
    return "again"
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with opened(tmp_path_factory, TASKS) as lab:
        yield lab


@pytest.mark.parametrize("pool", [(), ("-P", "solo"), ("-P", "threads", "-c", "3")], ids=str)
def test_a_worker_runs_and_stops(lab: Lab, pool: tuple[str, ...]) -> None:
    argv = [*ELSEWHERE, "-A", "proj", "worker", "-l", "info", *pool]
    worker = lab.spawn(argv, env=lab.environment, cwd=lab.folder)
    lab.wait_for(lambda: " ready." in worker.output() or not worker.alive(), "it is ready", 20)
    assert lab.run("add", 2, 2) == 4
    assert lab.run("again") == "again"
    assert lab.result(lab.send("busy"), "FAILURE")["result"]["exc_type"] == "SoftTimeLimitExceeded"
    running = lab.send("nap", f"last {pool}", 0.3)
    lab.wait_mark("begin", f"last {pool}")
    assert worker.stop(signal.SIGINT) == 0
    assert lab.state(running) == "SUCCESS"
    assert "Warm shutdown" in worker.output()
    assert lab.consumers() == 0


def test_a_second_signal_ends_it_at_once(lab: Lab) -> None:
    worker = lab.spawn([*ELSEWHERE, "-A", "proj", "worker", "-l", "info"], env=lab.environment, cwd=lab.folder)
    lab.send("nap", "long", 60)
    lab.wait_mark("begin", "long", 20)
    worker.send(signal.SIGTERM)
    lab.wait_for(lambda: "Warm shutdown" in worker.output(), "it has heard")
    assert worker.stop(signal.SIGTERM) == -signal.SIGTERM
    lab.redis.flushall()


def test_a_worker_in_one_process_takes_remote_commands(lab: Lab) -> None:
    argv = [*ELSEWHERE, "-A", "proj", "worker", "-l", "info", "-P", "threads", "-c", "2", "-n", "alone@h"]
    worker = lab.spawn(argv, env=lab.environment, cwd=lab.folder)
    lab.wait_for(lambda: " ready." in worker.output() or not worker.alive(), "it is ready", 30)
    control, own = lab.app.control, ["alone@h"]
    inspect = control.inspect(destination=own, timeout=20, limit=1)

    def tell(command: str, **arguments: Any) -> Any:
        how = {"destination": own, "reply": True, "timeout": 20, "limit": 1}
        return control.broadcast(command, arguments=arguments, **how)[0]["alone@h"]  # type: ignore[index]

    assert inspect.ping() == {"alone@h": {"ok": "pong"}}
    assert "proj.add" in inspect.registered()["alone@h"]
    running = lab.send("busy_for", 60)
    lab.wait_mark("begin", "busy_for", 20)
    (active,) = inspect.active()["alone@h"]
    assert (active["id"], active["worker_pid"]) == (running, worker.pid)
    assert tell("terminate", task_id=running, signal="TERM") == {"ok": f"terminate: {running}"}
    assert lab.result(running, "REVOKED", 20)
    assert tell("time_limit", task_name="proj.busy_for", soft=0.2) == {"ok": "time limits set successfully"}
    assert lab.result(lab.send("busy_for", 60), "FAILURE", 20)["result"]["exc_type"] == "SoftTimeLimitExceeded"
    assert "error" in tell("pool_grow", n=1)
    assert "one process" in tell("add_consumer", queue="other")["error"]
    control.shutdown(destination=own)
    assert worker.wait(30) == 0


@pytest.mark.parametrize("pool", ["prefork", "gevent", "asyncio"])
def test_other_pools_are_refused_in_a_sentence(lab: Lab, pool: str) -> None:
    done = lab.spawn([*ELSEWHERE, "-A", "proj", "worker", "-P", pool], env=lab.environment, cwd=lab.folder)
    assert done.wait(30) == 2
    assert f"cannot run the pool {pool} on Windows" in done.output()
    assert "Traceback" not in done.output()


@pytest.mark.parametrize(
    "words",
    [("--help",), ("queues",), ("tasks",), ("run", "task", "proj.add", "[1, 2]"), ("inspect", "ping"), ("results",)],
    ids=" ".join,
)
def test_commands_work(lab: Lab, words: tuple[str, ...]) -> None:
    done = lab.spawn([*ELSEWHERE, "-A", "proj", *words], env=lab.environment, cwd=lab.folder)
    code, text = done.wait(30), done.output()
    assert "Traceback" not in text
    assert code in ((0, 3) if words[0] == "inspect" else (0,)), text
    lab.redis.flushall()


@pytest.mark.parametrize("words", [("up",), ("beat",), ("agent",), ("worker", "-B")], ids=" ".join)
def test_what_does_not_run_there_says_so_in_a_sentence(lab: Lab, words: tuple[str, ...]) -> None:
    done = lab.spawn([*ELSEWHERE, "-A", "proj", *words], env=lab.environment, cwd=lab.folder)
    code, text = done.wait(30), done.output()
    assert code == 2, text
    assert "Traceback" not in text
    assert "on Windows" in text


def test_every_module_of_a_client_can_be_imported() -> None:
    code = (
        "from support import elsewhere; elsewhere.take_away()\n"
        "import opsq, opsq.result, opsq.schedules, opsq.signals, opsq.exceptions, opsq.canvas, opsq.app.control\n"
        "import opsq.contrib.abortable, opsq.contrib.testing.worker, opsq.utils.log, opsq.platforms\n"
        "for name in opsq.__all__: getattr(opsq, name)\n"
    )
    tests = Path(elsewhere.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=tests, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_is_left_for_whoever_comes_next(lab: Lab, wait_for: Callable[..., Any]) -> None:
    wait_for(lambda: lab.in_flight() == 0)
