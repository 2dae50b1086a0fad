"""Every option of Celery's worker is taken, before or after the command; settings of the app count; the pidfile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import lab as labs
from support.lab import Lab
from support.processes import Running

TASKS = """
import json

app.conf.update(json.loads(os.environ.get("CONF", "{}")))


@app.task
def whoami():
    return [os.getpid(), os.getuid(), os.getgid(), os.umask(0)]


@app.task
def die_once(text):
    if not os.path.exists(text):
        open(text, "w").close()
        os.kill(os.getpid(), 9)
    return "lived"


@app.task(bind=True)
def wait_for_file(self, text):
    mark("begin", text)
    deadline = time.monotonic() + 20
    while not os.path.exists(text) and time.monotonic() < deadline:
        time.sleep(0.002)


other = Celery("other", set_as_current=False)
"""

WORKER = [sys.executable, "-m", "opsq"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        yield lab


@pytest.fixture(autouse=True)
def _workers_end(lab: Lab) -> Iterator[None]:
    yield
    lab.end_workers()


def call(lab: Lab, *words: str, conf: dict[str, Any] | None = None, **environment: str) -> Running:
    """The command line with these words, in the project's folder."""
    env = {**lab.environment, **environment, "CONF": json.dumps(conf or {})}
    return lab.spawn([*WORKER, *words], env=env, cwd=lab.folder)


def ready(lab: Lab, *words: str, **options: Any) -> Running:
    running = call(lab, *words, **options)
    lab.wait_for(lambda: list(lab.redis.scan_iter("*opsq:worker:*")), "it has registered")
    return running


UNIT_FILE = """
worker -E -O fair --without-gossip --without-mingle --without-heartbeat --heartbeat-interval 5 --prefetch-multiplier=1
--max-tasks-per-child=100 --max-memory-per-child=900000 --time-limit=300 --soft-time-limit=250.5 --hostname=w1@%h
--uid={uid} --gid={gid} --umask=027 --pidfile=%n.pid --logfile=%n%I.log --loglevel=INFO --autoscale=2,1 --concurrency=1
--pool=prefork --queues=unit --exclude-queues=nothing --statedb=%n.state -B -s schedule.db
--scheduler celery.beat:PersistentScheduler
--pool-start-method fork --disable-prefetch --executable=/usr/bin/python3 --include=json
"""


def test_the_line_of_an_old_unit_file_runs(lab: Lab) -> None:
    words = UNIT_FILE.format(uid=os.getuid(), gid=os.getgid()).split()
    running = ready(lab, "-A", "proj", *words)
    log = lab.folder / "w1.log"
    lab.wait_for(lambda: log.exists() and " ready." in log.read_text(), "it is ready")
    assert (lab.folder / "w1.pid").read_text() == f"{running.pid}\n"
    assert lab.run("whoami", queue="unit")[1:] == [os.getuid(), os.getgid(), 0o027]
    said = [line for line in log.read_text().splitlines() if "has no effect" in line]
    for option in ("schedule", "statedb", "executable"):
        assert sum(f"--{option} has no effect" in line for line in said) == 1, option
    for option in ("events", "gossip", "mingle", "heartbeat", "optimization", "prefetch"):
        assert option not in " ".join(said)
    assert running.stop() == 0
    assert not (lab.folder / "w1.pid").exists()


@pytest.mark.parametrize(
    "words",
    [
        "-l info -c 1 -Q q -A proj worker",
        "worker -A proj -l info -c 1 -Q q",
        "-A proj worker -l info -c 1 -Q q",
        "-A proj -l INFO worker -c 1 -Q q",
        "-linfo -c1 -Qq -Aproj worker",
        "--app=proj worker --loglevel=Info --concurrency=1 --queues=q --task-events",
        "worker --app proj --loglevel info --concurrency auto --queues q --purge --events --without-gossip",
        "-A proj.app -C -q worker --discard -Q q -l info",
        "--workdir . -A proj:app --no-color --skip-checks --loader x worker -Q q -l info",
    ],
)
def test_options_stand_before_or_after_the_command_short_or_long(lab: Lab, words: str) -> None:
    running = call(lab, *words.split())
    lab.wait_for(lambda: " ready." in running.output(), "it is ready")
    assert lab.consumers("q") >= 1
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-A proj worker -D", "opsq up"),
        ("-A proj worker --detach", "opsq up"),
        ("-A proj worker -P nonsense", "nonsense"),
        ("-A proj worker -c many", "many"),
        ("-A proj worker -c -3", "-3"),
        ("-A proj worker -c 100000", "100000"),
        ("-A proj worker --prefetch-multiplier=x", "--prefetch-multiplier"),
        ("-A proj worker --time-limit=soon", "--time-limit"),
        ("-A proj worker --time-limit=-1", "--time-limit"),
        ("-A proj worker --max-tasks-per-child=-1", "--max-tasks-per-child"),
        ("-A proj worker --lease=0", "--lease"),
        ("-A proj worker --umask=999", "999"),
        ("-A proj worker --uid=nobody-of-this-name", "nobody-of-this-name"),
        ("-A proj worker --gid=nobody-of-this-name", "nobody-of-this-name"),
        ("-A proj worker --no-such-option", "--no-such-option"),
        ("-A proj worker -Q a -X a", "a"),
        ("-A proj worker --log-format yaml", "yaml"),
        ("-A proj worker stray", "stray"),
    ],
)
def test_a_mistake_in_the_call_is_one_clear_line_and_exit_2(lab: Lab, words: str, said: str) -> None:
    running = call(lab, *words.split())
    assert running.wait() == 2, running.report()
    first, *rest = [line for line in running.output().splitlines() if "another worker goes by" not in line]
    assert first.startswith("opsq: ")
    assert said in running.output()
    assert all(line.startswith("hint: ") for line in rest), running.output()


def test_concurrency_zero_is_celerys_word_for_the_default(lab: Lab) -> None:
    running = ready(lab, "-A", "proj", "worker", "-c", "0", "-Q", "zero")
    lab.wait_for(lambda: lab.consumers("zero") == len(os.sched_getaffinity(0)), "a child for each CPU")
    assert running.stop() == 0


def test_the_messages_that_wait_are_dropped_when_asked_for(lab: Lab) -> None:
    for priority in (0, 5):
        lab.send("add", 1, 1, queue="full", priority=priority)
    running = lab.worker("-c", "1", "-Q", "full", "--purge")
    assert lab.depth("full") == 0
    assert lab.run("add", 1, 1, queue="full") == 2
    assert running.stop() == 0


def can_be_nobody() -> bool:
    """Whether this process may become the user nobody, and that user may start this very Python."""
    if os.getuid() != 0:
        return False
    try:
        return not subprocess.run([*WORKER, "--version"], user="nobody", capture_output=True).returncode
    except OSError:
        return False


@pytest.mark.skipif(not can_be_nobody(), reason="only root may become somebody else")
def test_a_worker_becomes_the_user_it_is_told(lab: Lab) -> None:
    import pwd

    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        source = (lab.folder / "proj.py").read_text()
        Path(folder, "proj.py").write_text(source)
        environment = {"MARKS": f"{folder}/marks", "PYTHONPATH": folder, "OPSQ_STATE_DIR": f"{folder}/state"}
        argv = [*WORKER, "-A", "proj", "worker", "-c", "1", "-Q", "nobody", "--uid=nobody", "--umask=077"]
        running = lab.spawn(argv, env={**lab.environment, **environment}, cwd=folder)
        lab.wait_for(lambda: lab.consumers("nobody"), "it consumes")
        assert lab.run("whoami", queue="nobody")[1:] == [nobody.pw_uid, nobody.pw_gid, 0o077]
        assert psutil.Process(running.pid).uids().real == nobody.pw_uid
        assert running.stop() == 0


# -- settings of the app ----------------------------------------------------------------------------------------------


def test_settings_of_the_app_are_the_workers(lab: Lab) -> None:
    conf = {
        "worker_concurrency": 3,
        "task_acks_late": True,
        "task_track_started": True,
        "result_expires": 60,
        "task_default_queue": "main",
    }
    running = ready(lab, "-A", "proj", "worker", "-l", "info", conf=conf)
    lab.wait_for(lambda: lab.consumers("main") == 3, "three children on its default queue")
    task_id = lab.send("wait_for_file", "settings", queue="main")
    lab.wait_mark("begin", "settings")
    assert lab.state(task_id) == "STARTED"
    (lab.folder / "settings").touch()
    lab.value(task_id)
    assert 50 < int(lab.redis.ttl(f"celery-task-meta-{task_id}")) <= 60  # type: ignore[arg-type]
    assert lab.value(lab.send("die_once", "once", queue="main"), 20) == "lived"
    assert running.stop() == 0


def test_old_names_of_settings_are_as_good(lab: Lab) -> None:
    conf = {"CELERYD_CONCURRENCY": 3, "CELERY_DEFAULT_QUEUE": "old", "CELERYD_TASK_TIME_LIMIT": 0.3}
    running = ready(lab, "-A", "proj", "worker", conf=conf)
    lab.wait_for(lambda: lab.consumers("old") == 3, "three children on its default queue")
    record = lab.result(lab.send("nap", "old names", 30, queue="old"), "FAILURE")
    assert record["result"]["exc_message"] == [0.3]
    assert running.stop() == 0


def test_settings_of_children_and_options_that_win_over_them(lab: Lab) -> None:
    conf = {
        "worker_max_tasks_per_child": 2,
        "worker_pool": "solo",
        "task_soft_time_limit": 0.2,
        "worker_concurrency": 5,
    }
    running = ready(lab, "-A", "proj", "worker", "-Q", "few", "--soft-time-limit=5", conf=conf)
    lab.wait_for(lambda: lab.consumers("few") == 1, "solo has one child")
    pids = [lab.run("whoami", queue="few")[0] for _ in range(4)]
    assert len(set(pids)) == 2
    assert lab.run("nap", "longer than the setting", 0.4, queue="few")
    assert running.stop() == 0


def test_all_keys_of_a_prefix_stay_below_it(lab: Lab) -> None:
    conf = {"broker_transport_options": {"global_keyprefix": "acme:"}}
    before = set(lab.redis.keys())
    running = ready(lab, "-A", "proj", "worker", "-l", "info", "-c", "1", "-Q", "prefixed", conf=conf)
    raw = labs.message("add", task_id := labs.new_id(), (2, 2))
    lab.redis.lpush("acme:prefixed", raw, labs.message("unheard_of", dead_id := labs.new_id()))
    assert lab.value(task_id) == 4
    lab.wait_for(lambda: lab.redis.hexists("acme:opsq:dead:{prefixed}", dead_id), "its dead letter")
    assert running.stop() == 0
    after: Any = lab.redis.keys()
    new = {key for key in after if key not in before and not key.startswith(b"celery-task-meta-")}
    assert new
    assert all(key.startswith(b"acme:") for key in new), new
    lab.redis.delete(*new)


# -- the pidfile -----------------------------------------------------------------------------------------------------


def start_with_pidfile(lab: Lab, file: Path) -> Running:
    return call(lab, "-A", "proj", "worker", "-c", "1", "-Q", "pid", "-l", "info", f"--pidfile={file}")


def pid_in(file: Path) -> int | None:
    return int(file.read_text()) if file.exists() and file.read_text().strip() else None


def test_the_pidfile_holds_the_pid_alone_while_the_worker_runs(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "worker.pid"
    running = start_with_pidfile(lab, file)
    lab.wait_for(lambda: pid_in(file) == running.pid, "it is written")
    lab.wait_for(lambda: " ready." in running.output(), "it is ready")
    subprocess.run(f"kill -TERM $(cat {file})", shell=True, check=True)
    assert running.wait() == 0
    assert not file.exists()


def test_a_second_worker_refuses_the_pidfile_of_a_live_one(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "worker.pid"
    first = start_with_pidfile(lab, file)
    lab.wait_for(lambda: pid_in(file), "it is written")
    second = start_with_pidfile(lab, file)
    assert second.wait() == 2
    assert f"belongs to process {first.pid}" in second.output()
    assert "Traceback" not in second.output()
    assert pid_in(file) == first.pid
    assert first.alive()


def test_a_stale_pidfile_is_taken_over(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "worker.pid"
    first = start_with_pidfile(lab, file)
    lab.wait_for(lambda: " ready." in first.output(), "it is ready")
    first.send(signal.SIGKILL)
    first.wait()
    assert pid_in(file) == first.pid
    second = start_with_pidfile(lab, file)
    lab.wait_for(lambda: pid_in(file) == second.pid, "it is taken over")
    lab.wait_for(lambda: " ready." in second.output(), "it is ready")


def test_a_pid_that_another_process_has_got_since_is_not_taken_for_a_worker(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "worker.pid"
    stranger = lab.spawn(["sleep", "60"])
    file.write_text(f"{stranger.pid}\n")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    running = start_with_pidfile(lab, file)
    lab.wait_for(lambda: pid_in(file) == running.pid, "it is taken over")
    lab.wait_for(lambda: " ready." in running.output(), "it is ready")
    stranger.send(signal.SIGKILL)
    stranger.wait()


def test_the_pidfile_of_a_process_that_may_have_written_it_is_left_alone(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "worker.pid"
    other = lab.spawn(["sleep", "60"])
    file.write_text(f"{other.pid}\n")
    running = start_with_pidfile(lab, file)
    assert running.wait() == 2
    assert pid_in(file) == other.pid
    other.send(signal.SIGKILL)
    other.wait()


@pytest.mark.parametrize("text", ["", "no pid\n", "99999999\n"])
def test_a_pidfile_that_names_nobody_is_taken_over(lab: Lab, tmp_path: Path, text: str) -> None:
    file = tmp_path / "worker.pid"
    file.write_text(text)
    running = start_with_pidfile(lab, file)
    lab.wait_for(lambda: file.read_text() == f"{running.pid}\n", "it is taken over")
    lab.wait_for(lambda: " ready." in running.output(), "it is ready")
