"""What a worker writes: Celery's lines, in Celery's format, with what the tasks themselves print between them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import lab as labs
from support.lab import Lab
from support.processes import Running

TASKS = """
import logging
import sys
import threading

from opsq.exceptions import Ignore, Reject
from opsq.signals import setup_logging
from opsq.utils.log import get_task_logger

logger = get_task_logger(__name__)
plain_logger = logging.getLogger("of.mine")

if os.environ.get("LOG_FORMAT"):
    app.conf.worker_log_format = os.environ["LOG_FORMAT"]
    app.conf.worker_task_log_format = os.environ["TASK_LOG_FORMAT"]
if os.environ.get("RAW"):
    app.conf.worker_redirect_stdouts = False
if os.environ.get("OWN_LOGGING"):

    @setup_logging.connect(weak=False)
    def set_up(loglevel, logfile, format, colorize, **_others):
        logging.basicConfig(level=loglevel, format="mine %(name)s %(message)s", filename="own.log")


class Loud(dict):
    def __repr__(self):
        mark("repr")
        return "<loud>"


@app.task
def talk(text):
    print("said", text)
    print("twice", text, file=sys.stderr)
    return text


@app.task
def mumble(text):
    print("mumbled " + text, end="")


@app.task
def log(text):
    logger.info("by the task logger %s", text)
    plain_logger.info("by a plain logger %s", text)
    logger.debug("debug %s", text)
    return text


@app.task
def log_from_a_thread(text):
    thread = threading.Thread(target=lambda: print("thread", text))
    thread.start()
    thread.join()


@app.task
def lines(text):
    print("first " + text + "\\n\\nsecond " + text)


@app.task
def loud():
    return Loud()


@app.task
def long_value():
    return "x" * 5000


@app.task(resultrepr_maxsize=12)
def briefly_shown():
    return "x" * 100


@app.task
def fail(text):
    raise ValueError(text)


@app.task(throws=(KeyError,))
def expected(text):
    raise KeyError(text)


@app.task(bind=True, default_retry_delay=0)
def again(self):
    if not self.request.retries:
        raise self.retry(exc=ValueError("not yet"))


@app.task
def ignore():
    raise Ignore()


@app.task(bind=True)
def reject(self, requeue):
    if self.request.delivery_info["redelivered"] or os.path.exists("rejected"):
        return
    open("rejected", "w").close()
    raise Reject("no use", requeue=requeue)


@app.task
def talk_and_wait(text):
    print("begun", text)
    deadline = time.monotonic() + 20
    while not os.path.exists("go-" + text) and time.monotonic() < deadline:
        time.sleep(0.002)
    print("over", text)
"""

INFO = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: INFO/ForkPoolWorker-\d+\] "


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        lab.worker("-c", "1", name="worker")
        yield lab


@pytest.fixture
def worker(lab: Lab) -> Running:
    """The worker at the level info that all tests share."""
    return lab.spawn.running[0]


def start(lab: Lab, queue: str, *options: str, **environment: str) -> Running:
    """Another worker, on a queue of its own, with its level among the options."""
    argv = [*labs.OPSQ, "-A", "proj", "worker", "-c", "1", "-Q", queue, *options]
    running = lab.spawn(argv, name=queue, env={**lab.environment, **environment}, cwd=lab.folder)
    lab.wait_for(lambda: lab.consumers(queue) == 1, "it consumes")
    return running


def matching(running: Running, pattern: str) -> list[str]:
    return [line for line in running.output().splitlines() if re.fullmatch(pattern, line)]


def wait_line(lab: Lab, running: Running, pattern: str) -> str:
    found: list[str] = lab.wait_for(lambda: matching(running, pattern), f"a line {pattern}")
    return found[0]


def test_a_task_has_a_line_when_it_is_received_and_one_when_it_ends(lab: Lab, worker: Running) -> None:
    task_id = lab.send("add", 2, 3)
    wait_line(lab, worker, INFO + rf"Task proj\.add\[{task_id}\] succeeded in [\d.e-]+s: 5")
    first, second = lab.lines(worker, task_id)
    assert re.fullmatch(INFO + rf"Task proj\.add\[{task_id}\] received", first)
    assert "succeeded" in second


def test_what_a_task_prints_stands_between_them_with_its_name_and_id(lab: Lab, worker: Running) -> None:
    task_id = lab.send("talk", "hello")
    wait_line(lab, worker, INFO + rf"Task proj\.talk\[{task_id}\] succeeded in [\d.e-]+s: 'hello'")
    received, said, twice, _succeeded = lab.lines(worker, task_id)
    assert received.endswith("received")
    warning = INFO.replace("INFO", "WARNING")
    assert re.fullmatch(warning + rf"proj\.talk\[{task_id}\]: said hello", said)
    assert re.fullmatch(warning + rf"proj\.talk\[{task_id}\]: twice hello", twice)


def test_each_line_of_a_print_is_a_line_with_the_name_and_the_id(lab: Lab, worker: Running) -> None:
    task_id = lab.send("lines", "x")
    wait_line(lab, worker, rf".*{task_id}.*succeeded.*")
    said = [line.partition("]: ")[2] for line in lab.lines(worker, task_id) if "]: " in line and "succ" not in line]
    assert said == ["first x", "second x"]


def test_a_print_without_an_end_of_line_belongs_to_its_task(lab: Lab, worker: Running) -> None:
    first, second = lab.send("mumble", "one"), lab.send("mumble", "two")
    wait_line(lab, worker, rf".*{second}.*succeeded.*")
    for task_id, text in ((first, "one"), (second, "two")):
        received, mumbled, _succeeded = lab.lines(worker, task_id)
        assert received.endswith("received")
        assert mumbled.endswith(f"proj.mumble[{task_id}]: mumbled {text}")


def test_loggers_of_tasks_name_the_task_and_others_do_not(lab: Lab, worker: Running) -> None:
    task_id = lab.send("log", "x")
    wait_line(lab, worker, rf".*{task_id}.*succeeded.*")
    assert matching(worker, INFO + rf"proj\.log\[{task_id}\]: by the task logger x")
    assert matching(worker, INFO + "by a plain logger x")
    assert "debug x" not in worker.output()


def test_a_thread_of_a_task_may_print(lab: Lab, worker: Running) -> None:
    lab.run("log_from_a_thread", "free")
    assert "thread free" in wait_line(lab, worker, r".*thread free")


def test_a_failure_has_its_traceback(lab: Lab, worker: Running) -> None:
    task_id = lab.send("fail", "bad")
    error = INFO.replace("INFO", "ERROR")
    line = wait_line(lab, worker, error + rf"Task proj\.fail\[{task_id}\] raised unexpected: ValueError\('bad'\)")
    after = worker.output().partition(line)[2].splitlines()[1:]
    assert after[0] == "Traceback (most recent call last):"
    lab.wait_for(lambda: "\nValueError: bad\n" in worker.output(), "the whole traceback")


def test_an_expected_failure_is_one_line_at_info(lab: Lab, worker: Running) -> None:
    task_id = lab.send("expected", "known")
    lab.result(task_id, "FAILURE")
    wait_line(lab, worker, INFO + rf"Task proj\.expected\[{task_id}\] raised expected: KeyError\('known'\)")
    assert "\nKeyError: 'known'" not in worker.output()


def test_a_retry_has_its_reason(lab: Lab, worker: Running) -> None:
    task_id = lab.send("again")
    lab.result(task_id)
    wait_line(lab, worker, INFO + rf"Task proj\.again\[{task_id}\] retry: Retry in 0s: ValueError\('not yet'\)")
    assert sum("received" in line for line in lab.lines(worker, task_id)) == 2


def test_ignored_and_rejected_tasks_are_named(lab: Lab, worker: Running) -> None:
    ignored, rejected = lab.send("ignore"), lab.send("reject", True)
    wait_line(lab, worker, INFO + rf"Task proj\.ignore\[{ignored}\] ignored")
    wait_line(lab, worker, INFO + rf"Task proj\.reject\[{rejected}\] reject.*")
    lab.result(rejected)


def test_a_long_value_is_cut(lab: Lab, worker: Running) -> None:
    task_id = lab.send("long_value")
    line = wait_line(lab, worker, rf".*{task_id}.*succeeded.*")
    assert line.endswith("...")
    assert len(line) < 1300


def test_a_task_may_say_how_much_of_its_value_is_shown(lab: Lab, worker: Running) -> None:
    task_id = lab.send("briefly_shown")
    wait_line(lab, worker, INFO + rf"Task proj\.briefly_shown\[{task_id}\] succeeded in [\d.e-]+s: 'xxxxxxxx\.\.\.")


def test_a_name_for_show_is_shown(lab: Lab, worker: Running) -> None:
    task_id = lab.send("add", 1, 1, shadow="another.name")
    wait_line(lab, worker, INFO + rf"Task another\.name\[{task_id}\] succeeded in .*")


def test_what_a_long_task_prints_is_seen_while_it_runs(lab: Lab, worker: Running) -> None:
    task_id = lab.send("talk_and_wait", "long")
    wait_line(lab, worker, rf".*proj\.talk_and_wait\[{task_id}\]: begun long")
    assert "over long" not in worker.output()
    (lab.folder / "go-long").touch()
    lab.result(task_id)
    wait_line(lab, worker, rf".*{task_id}.*succeeded.*")


def test_so_is_what_a_long_task_prints_in_a_batch_of_short_ones(lab: Lab, worker: Running) -> None:
    lab.push("celery", *[("add", 1, 1) for _ in range(500)])
    lab.wait_for(lab.is_quiet, "large batches")
    lab.push("celery", *[("add", 1, 1) for _ in range(5)], ("talk_and_wait", "batch"), ("add", 1, 1))
    wait_line(lab, worker, r".*begun batch")
    assert "over batch" not in worker.output()
    (lab.folder / "go-batch").touch()
    wait_line(lab, worker, r".*over batch")
    lab.wait_for(lab.is_quiet, "all are done")


@pytest.mark.parametrize("level", ["INFO", "Info", "20", "debug"])
def test_levels_in_any_case(lab: Lab, level: str) -> None:
    running = start(lab, f"level-{level}", "-l", level)
    task_id = lab.send("add", 1, 1, queue=f"level-{level}")
    wait_line(lab, running, INFO + rf"Task proj\.add\[{task_id}\] succeeded .*")
    lab.wait_for(lambda: " ready." in running.output(), "it is ready")
    assert running.stop() == 0


@pytest.mark.parametrize("options", [(), ("-l", "WARNING"), ("--loglevel=error",)], ids=str)
def test_above_info_a_success_is_silent_and_nothing_is_built_for_it(lab: Lab, options: tuple[str, ...]) -> None:
    queue = f"quiet-{len(options)}-{len(''.join(options))}"
    running = start(lab, queue, *options)
    before = len(lab.written("repr"))
    ids = [lab.send("loud", queue=queue), lab.send("add", 1, 1, queue=queue)]
    bad = lab.send("fail", "loud and clear", queue=queue)
    lab.result(bad, "FAILURE")
    wait_line(lab, running, rf".*ERROR.*{bad}.*raised unexpected.*")
    assert not any(lab.lines(running, task_id) for task_id in ids)
    assert len(lab.written("repr")) == before
    assert running.stop() == 0


def test_the_value_is_shown_by_its_repr_at_info(lab: Lab, worker: Running) -> None:
    task_id = lab.send("loud")
    wait_line(lab, worker, INFO + rf"Task proj\.loud\[{task_id}\] succeeded in .*: <loud>")


def test_an_unknown_level_is_a_mistake_of_the_call(lab: Lab) -> None:
    running = lab.spawn([*labs.OPSQ, "-A", "proj", "worker", "-l", "loud"], env=lab.environment, cwd=lab.folder)
    assert running.wait() == 2
    assert "'loud' is no log level" in running.output()
    assert "Traceback" not in running.output()


def test_json_only_when_asked_for_and_then_every_line(lab: Lab) -> None:
    running = start(lab, "json", "-l", "info", "--log-format", "json")
    good, bad = lab.send("talk", "hello", queue="json"), lab.send("fail", "bad", queue="json")
    lab.result(bad, "FAILURE")
    lab.wait_for(lambda: "raised unexpected" in running.output(), "its line")
    assert running.stop() == 0
    records: list[dict[str, Any]] = [json.loads(line) for line in running.output().splitlines()]
    said = [record for record in records if record["message"] == "said hello"]
    assert [(record["task_name"], record["task_id"]) for record in said] == [("proj.talk", good)]
    assert all({"time", "level", "process", "logger", "message"} <= record.keys() for record in records)
    failed = [record for record in records if "raised unexpected" in record["message"]]
    assert "ValueError: bad" in failed[0]["message"] + failed[0].get("exception", "")


def test_lines_go_to_a_file_when_one_is_named(lab: Lab) -> None:
    running = start(lab, "file", "-l", "info", "-f", "%n.log", "-n", "filed@here")
    file = lab.folder / "filed.log"
    task_id = lab.send("talk", "to the file", queue="file")
    lab.wait_for(lambda: "succeeded" in read(file), "its lines")
    assert f"proj.talk[{task_id}]: said to the file" in read(file)
    assert task_id not in running.output()
    assert running.stop() == 0
    assert "Warm shutdown" in read(file)


def read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def test_formats_are_those_of_the_settings(lab: Lab) -> None:
    formats = {"LOG_FORMAT": "<%(levelname)s> %(message)s", "TASK_LOG_FORMAT": "<%(task_name)s> %(message)s"}
    running = start(lab, "formats", "-l", "info", **formats)
    task_id = lab.send("log", "x", queue="formats")
    wait_line(lab, running, rf"<INFO> Task proj\.log\[{task_id}\] succeeded .*")
    assert matching(running, "<proj.log> by the task logger x")
    assert matching(running, "<INFO> by a plain logger x")
    assert running.stop() == 0


def test_who_sets_logging_up_has_it_their_way(lab: Lab) -> None:
    running = start(lab, "own", "-l", "info", OWN_LOGGING="1")
    task_id = lab.send("log", "mine", queue="own")
    lab.result(task_id)
    own = lab.folder / "own.log"
    lab.wait_for(lambda: f"Task proj.log[{task_id}] succeeded" in read(own), "its lines")
    assert "mine of.mine by a plain logger mine" in read(own)
    assert "mine proj by the task logger mine" in read(own)
    assert task_id not in running.output()
    assert running.stop() == 0


def test_prints_are_left_alone_when_the_settings_say_so(lab: Lab) -> None:
    running = start(lab, "raw", "-l", "info", RAW="1")
    lab.run("talk", "plain", queue="raw")
    wait_line(lab, running, "said plain")
    assert running.stop() == 0


def test_the_banner_says_what_runs_where_without_the_password(lab: Lab, worker: Running) -> None:
    banner = worker.output().partition("[20")[0]
    assert lab.url in banner
    assert "celery" in banner
    assert "1 (prefork)" in banner
    assert "proj.add" in banner
    assert re.search(r"and \d+ more", banner)
    lab.redis.config_set("requirepass", "s3cret")
    try:
        url = lab.url.replace("redis://", "redis://:s3cret@")
        argv = [*labs.OPSQ, "-A", "proj", "worker", "-c", "1", "-Q", "secret", "-l", "debug", "-b", url]
        running = lab.spawn(argv, name="secret", env=lab.environment, cwd=lab.folder)
        lab.wait_for(lambda: " ready." in running.output(), "it is ready")
        assert running.stop() == 0
    finally:
        lab.redis.config_set("requirepass", "")
    assert "s3cret" not in running.output()
    assert "redis://:" in running.output()
