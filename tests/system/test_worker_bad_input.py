"""What is wrong with the call, the app or the broker is one clear line and the documented exit code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import lab as labs
from support.lab import Lab
from support.processes import Running
from support.redis_server import free_port

TASKS = """
if os.environ.get("BROKER"):
    app.conf.broker_url = os.environ["BROKER"]
if os.environ.get("BACKEND"):
    app.conf.result_backend = os.environ["BACKEND"]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        (lab.folder / "no_app.py").write_text("x = 1\n")
        (lab.folder / "two_apps.py").write_text(
            "from opsq import Celery\nfirst = Celery('one')\nsecond = Celery('two')\n"
        )
        (lab.folder / "typo.py").write_text("from opsq import Celery\n\napp = Celery('typo'\n")
        (lab.folder / "raises.py").write_text("from opsq import Celery\nprint(1 / 0)\n")
        (lab.folder / "lacks.py").write_text("import no_such_library\n")
        (lab.folder / "bad_include.py").write_text("from opsq import Celery\napp = Celery('x', include=['typo'])\n")
        (lab.folder / "bad_config.py").write_text(
            "from opsq import Celery\napp = Celery('x')\napp.config_from_object('no_such_settings')\n"
        )
        yield lab


def call(lab: Lab, *words: str, **environment: str | None) -> Running:
    argv = [*labs.OPSQ, *words, "-n", f"{labs.new_id()}@here"]
    running = lab.spawn(argv, env={**lab.environment, **environment}, cwd=lab.folder)
    running.wait(20)
    return running


def mistake(running: Running, code: int) -> str:
    """The one line (and its hint) of a command that ended with this code."""
    assert running.process.returncode == code, running.report()
    first, *rest = running.output().splitlines()
    assert first.startswith("opsq: "), running.output()
    assert len(rest) <= 1, running.output()
    assert all(line.startswith("hint: ") for line in rest), running.output()
    return running.output()


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("nothing_of_this_name", "nothing_of_this_name"),
        ("proj:nothing", "nothing"),
        ("proj.nothing", "nothing"),
        ("no_app", "no_app"),
        ("typo", "line 3"),
        ("raises", "division by zero"),
        ("lacks", "no_such_library"),
        ("bad_include", "line 3"),
        ("bad_config", "no_such_settings"),
        ("proj..x", "proj..x"),
        ("../proj", "../proj"),
    ],
)
def test_an_app_that_cannot_be_had_is_named_with_the_reason(lab: Lab, app: str, said: str) -> None:
    text = mistake(call(lab, "-A", app, "worker"), 2)
    assert said in text


def test_without_an_app_it_runs_our_own(lab: Lab, tmp_path: Path) -> None:
    """In a folder without an app the worker runs opsq's own small one."""
    running = lab.spawn([*labs.OPSQ, "worker", "-Q", "own", "-l", "info"], env=lab.environment, cwd=tmp_path)
    lab.wait_for(lambda: " ready." in running.output(), "it is ready")
    assert lab.value(str(lab.app.send_task("opsq.ping", queue="own").id)) == "pong"
    assert running.stop() == 0


def test_a_broker_that_does_not_answer_is_exit_3(lab: Lab) -> None:
    port = free_port()
    text = mistake(call(lab, "-A", "proj", "worker", OPSQ_BROKER_URL=f"redis://127.0.0.1:{port}/0"), 3)
    assert f"127.0.0.1:{port}" in text
    assert "connection refused" in text


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://no-such-host.invalid/0", "no-such-host.invalid"),
        ("redis+socket:///nowhere/redis.sock", "/nowhere/redis.sock"),
    ],
)
def test_so_is_one_that_is_not_there_at_all(lab: Lab, url: str, said: str) -> None:
    assert said in mistake(call(lab, "-A", "proj", "worker", "-b", url), 3)


def test_a_results_server_that_does_not_answer_is_exit_3(lab: Lab) -> None:
    port = free_port()
    text = mistake(call(lab, "-A", "proj", "worker", BACKEND=f"redis://127.0.0.1:{port}/0"), 3)
    assert f"127.0.0.1:{port}" in text


@pytest.mark.parametrize("password", ["", "wrong"])
def test_a_wrong_password_is_exit_4_and_is_not_shown(lab: Lab, password: str) -> None:
    lab.redis.config_set("requirepass", "s3cret")
    try:
        url = lab.url.replace("redis://", f"redis://:{password}@") if password else lab.url
        text = mistake(call(lab, "-A", "proj", "worker", OPSQ_BROKER_URL=url), 4)
    finally:
        lab.redis.config_set("requirepass", "")
    assert "refused the login" in text
    assert "wrong@" not in text


@pytest.mark.parametrize(
    "url", ["amqp://guest@localhost//", "sqla+sqlite:///x.db", "localhost:6379", "redis://localhost/x"]
)
def test_any_other_kind_of_broker_is_one_sentence_that_says_what_to_change(lab: Lab, url: str) -> None:
    text = mistake(call(lab, "-A", "proj", "worker", OPSQ_BROKER_URL=None, BROKER=url), 2)
    assert "redis://" in text.lower() or "Redis" in text


@pytest.mark.parametrize("url", ["db+sqlite:///x.db", "rpc://", "cache+memcached://localhost"])
def test_any_other_kind_of_results_too(lab: Lab, url: str) -> None:
    text = mistake(call(lab, "-A", "proj", "worker", BACKEND=url), 2)
    assert "Redis" in text or "redis://" in text


def test_no_broker_anywhere_says_what_to_do(lab: Lab) -> None:
    text = mistake(call(lab, "-A", "proj", "worker", OPSQ_BROKER_URL=None), 3)
    assert "no broker configured and none running here" in text
    assert "opsq up" in text


def test_a_state_directory_that_cannot_be_written_is_one_line(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for place in (file / "below", Path("/proc/opsq")):
        running = call(lab, "-A", "proj", "--state-dir", str(place), "worker")
        assert running.process.returncode in (1, 2, 4)
        text = mistake(running, running.process.returncode)
        assert str(place) in text


@pytest.mark.parametrize(
    "words", [("-f", "/proc/nowhere/worker.log"), ("--pidfile", "/proc/nowhere/w.pid"), ("--workdir", "/nowhere")]
)
def test_a_file_that_cannot_be_written_is_one_line(lab: Lab, words: tuple[str, str]) -> None:
    running = call(lab, "-A", "proj", "worker", *words)
    assert running.process.returncode in (1, 2, 4)
    assert "nowhere" in mistake(running, running.process.returncode)


def test_a_module_that_is_to_be_included_and_is_not_there_is_named(lab: Lab) -> None:
    assert "no_such_tasks" in mistake(call(lab, "-A", "proj", "worker", "-I", "no_such_tasks"), 2)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("worker_concurrency", "'many'"),
        ("accept_content", "['nonsense']"),
        ("timezone", "'Mars/Olympus'"),
        ("worker_pool", "'nonsense'"),
        ("task_time_limit", "'soon'"),
        ("result_expires", "'tomorrow'"),
        ("worker_prefetch_multiplier", "'x'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(lab: Lab, setting: str, value: str) -> None:
    module = f"bad_{setting}"
    (lab.folder / f"{module}.py").write_text(
        f"from opsq import Celery\napp = Celery('x')\napp.conf.update({setting}={value})\n"
    )
    assert value.strip("[]'") in mistake(call(lab, "-A", module, "worker"), 2)
