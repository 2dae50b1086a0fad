"""Settings that change what a worker does, each set from outside as `CELERY_` and its name; those that it refuses."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import lab as labs
from support.lab import Lab
from support.processes import Running

from opsq import App

TASKS = """
import logging
import logging.config
import sys

if os.environ.get("OWN_HANDLER"):
    logging.basicConfig(filename="own.log", format="own %(message)s")
if os.environ.get("OWN_CELERY_LOGGER"):
    logging.config.dictConfig({
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"file": {"class": "logging.FileHandler", "filename": "celery.log"}},
        "loggers": {"celery": {"handlers": ["file"], "level": "INFO"}},
    })


@app.task
def boom(text):
    raise ValueError(text)


@app.task
def die():
    os.kill(os.getpid(), 9)


@app.task
def whoami():
    return os.getpid()


@app.task(rate_limit="1/h")
def rare():
    return "ran"


@app.task
def talk(text):
    print("said", text)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        yield lab


@pytest.fixture(autouse=True)
def _workers_end(lab: Lab) -> Iterator[None]:
    yield
    lab.end_workers()


def call(lab: Lab, *words: str, **environment: str) -> Running:
    """`opsq worker` as it is; what it says when it does not start."""
    argv = [*labs.OPSQ, "-A", "proj", "worker", *words]
    return lab.spawn(argv, env={**lab.environment, **environment}, cwd=lab.folder)


# -- tasks -----------------------------------------------------------------------------------------------------------


def test_failures_and_timeouts_are_kept_when_they_are_not_to_be_acknowledged(lab: Lab) -> None:
    settings = {"ACKS_LATE": "1", "ACKS_ON_FAILURE": "no", "ACKS_ON_TIMEOUT": "no", "TIME_LIMIT": "0.3"}
    lab.worker("-c", "1", "-Q", "unacked", **{f"CELERY_TASK_{name}": value for name, value in settings.items()})
    failed, late = lab.send("boom", "x", queue="unacked"), lab.send("nap", "late", 30, queue="unacked")
    lab.wait_for(lambda: lab.dead("unacked").keys() == {failed, late}, "both are dead letters")
    assert "its failures are not acknowledged" in lab.dead("unacked")[failed]["reason"]
    assert "it exceeded its time limit" in lab.dead("unacked")[late]["reason"]
    lab.redis.delete("opsq:dead:{unacked}")


def test_what_a_lost_child_ran_fails_when_it_shall_not_be_rejected(lab: Lab) -> None:
    lab.worker("-c", "1", "-Q", "lost", CELERY_TASK_ACKS_LATE="1", CELERY_TASK_REJECT_ON_WORKER_LOST="0")
    record = lab.result(lab.send("die", queue="lost"), "FAILURE")
    assert record["result"]["exc_type"] == "WorkerLostError"


def test_errors_are_stored_although_results_are_not(lab: Lab) -> None:
    stored = {"CELERY_TASK_IGNORE_RESULT": "1", "CELERY_TASK_STORE_ERRORS_EVEN_IF_IGNORED": "1"}
    lab.worker("-c", "1", "-Q", "errors", **stored)
    value, error = lab.send("add", 1, 1, queue="errors"), lab.send("boom", "x", queue="errors")
    assert lab.result(error, "FAILURE")["result"]["exc_message"] == ["x"]
    assert lab.record(value) is None


def test_what_is_accepted_is_read_and_nothing_else(lab: Lab) -> None:
    lab.worker("-c", "1", "-Q", "accepted", CELERY_ACCEPT_CONTENT="application/json, yaml")
    assert lab.value(lab.send("add", 1, 2, queue="accepted", serializer="yaml")) == 3
    refused = lab.send("add", 1, 2, queue="accepted", serializer="msgpack")
    lab.wait_for(lambda: refused in lab.dead("accepted"), "it is a dead letter")
    assert "application/x-msgpack" in lab.dead("accepted")[refused]["reason"]
    lab.redis.delete("opsq:dead:{accepted}")


def test_rate_limits_can_be_switched_off(lab: Lab) -> None:
    lab.worker("-c", "1", "-Q", "rare", CELERY_WORKER_DISABLE_RATE_LIMITS="true")
    assert [lab.run("rare", queue="rare") for _ in range(3)] == ["ran"] * 3


def test_who_waits_for_a_chord_looks_again_after_the_time_that_is_said(lab: Lab) -> None:
    lab.worker("-c", "1", "-Q", "unlock", CELERY_RESULT_CHORD_RETRY_INTERVAL="900")
    body = {"task": "proj.add", "args": [], "kwargs": {}, "options": {}, "subtask_type": None}
    parts = {"result": [[["never", None], None]]}
    lab.app.send_task("celery.chord_unlock", ("group", body), parts, queue="unlock")
    delayed: Any = lab.wait_for(lambda: lab.redis.zrange("opsq:delayed:{unlock}", 0, -1, withscores=True), "it waits")
    assert 800 < delayed[0][1] / 1000 - time.time() <= 900
    lab.end_workers()
    lab.redis.delete("opsq:delayed:{unlock}")


# -- the worker ------------------------------------------------------------------------------------------------------


def test_the_number_of_children_may_be_as_many_as_there_are_cpus(lab: Lab) -> None:
    lab.worker("-Q", "auto", CELERY_WORKER_CONCURRENCY="auto")
    lab.wait_for(lambda: lab.consumers("auto") == len(os.sched_getaffinity(0)), "a child for each CPU")


def test_a_child_that_has_grown_too_large_is_replaced(lab: Lab) -> None:
    lab.worker("-c", "1", "-Q", "large", CELERY_WORKER_MAX_MEMORY_PER_CHILD="1")
    assert lab.run("whoami", queue="large") != lab.run("whoami", queue="large")


def test_a_worker_may_have_a_queue_of_its_own(lab: Lab) -> None:
    running = lab.worker("-c", "1", "-Q", "shared", "-n", "own@here", CELERY_WORKER_DIRECT="yes")
    assert lab.run("add", 2, 2, queue="own@here.dq2") == 4
    bound: Any = lab.redis.smembers("_kombu.binding.C.dq2")
    assert bound == {b"own@here\x06\x16\x06\x16own@here.dq2"}
    assert "own@here.dq2" in running.output()


def test_commands_and_events_have_their_exchanges(lab: Lab) -> None:
    lab.worker("-c", "1", "-Q", "names", CELERY_CONTROL_EXCHANGE="mine", CELERY_EVENT_EXCHANGE="told")
    same = App("same", broker=lab.url, control_exchange="mine", set_as_current=False)
    assert same.control.ping(limit=1)
    assert lab.app.control.ping(timeout=0.3) == []
    with lab.redis.pubsub() as listener:
        listener.psubscribe("/0.told/*")
        found = lab.wait_for(lambda: listener.get_message(timeout=0.1, ignore_subscribe_messages=True), "a heartbeat")
    assert found["channel"] == b"/0.told/worker.heartbeat"


def test_a_worker_may_be_deaf_to_commands(lab: Lab) -> None:
    lab.worker("-c", "1", "-Q", "deaf", CELERY_WORKER_ENABLE_REMOTE_CONTROL="0")
    assert lab.app.control.ping(timeout=0.3) == []
    assert lab.run("add", 1, 1, queue="deaf") == 2


# -- logs ------------------------------------------------------------------------------------------------------------


def test_prints_have_the_level_that_is_set(lab: Lab) -> None:
    running = lab.worker("-c", "1", "-Q", "prints", CELERY_WORKER_REDIRECT_STDOUTS_LEVEL="ERROR")
    lab.run("talk", "loudly", queue="prints")
    lab.wait_for(lambda: re.search(r"ERROR/\S+\] proj.talk\[\S+\]: said loudly", running.output()), "an error's line")


def test_times_in_the_log_are_written_as_the_settings_say(lab: Lab) -> None:
    dates = {"CELERY_WORKER_LOG_DATEFMT": "AT %H", "CELERY_WORKER_TASK_LOG_DATEFMT": "IN %H"}
    running = lab.worker("-c", "1", "-Q", "dates", **dates)
    lab.run("talk", "now", queue="dates")
    lab.wait_for(lambda: "said now" in running.output(), "its line")
    assert re.search(r"(?m)^\[AT \d\d: INFO/\S+\] own@|^\[AT \d\d: INFO/\S+\] celery@\S+ ready\.$", running.output())
    assert re.search(r"(?m)^\[IN \d\d: WARNING/\S+\] proj.talk\[\S+\]: said now$", running.output())


def test_levels_have_colours_when_the_settings_say_so(lab: Lab) -> None:
    running = lab.worker("-c", "1", "-Q", "colours", CELERY_WORKER_LOG_COLOR="yes")
    lab.result(lab.send("boom", "red", queue="colours"), "FAILURE")
    lab.wait_for(lambda: re.search(r"\x1b\[1;31m\[.*ERROR.*raised unexpected", running.output()), "a red line")
    assert re.search(r"(?m)^\[.*INFO/\S+\] \S+ ready\.$", running.output())
    lab.end_workers()
    plain = lab.worker("-c", "1", "-Q", "colours", "--no-color", CELERY_WORKER_LOG_COLOR="yes")
    lab.result(lab.send("boom", "no colour", queue="colours"), "FAILURE")
    lab.wait_for(lambda: "raised unexpected" in plain.output(), "its line")
    assert "\x1b" not in plain.output()


def test_a_programs_own_handlers_stay_when_the_root_logger_is_not_hijacked(lab: Lab) -> None:
    call(lab, "-c", "1", "-Q", "own", "-l", "info", OWN_HANDLER="1", CELERY_WORKER_HIJACK_ROOT_LOGGER="0")
    own = lab.folder / "own.log"
    lab.wait_for(lambda: own.exists() and " ready." in own.read_text(), "its line is in the program's own file")
    own.unlink()
    lab.end_workers()
    lab.worker("-c", "1", "-Q", "own", OWN_HANDLER="1")
    assert not own.exists() or " ready." not in own.read_text()


def test_a_configuration_of_the_logger_celery_keeps_receiving(lab: Lab) -> None:
    lab.worker("-c", "1", "-Q", "kept", OWN_CELERY_LOGGER="1")
    task_id = lab.send("add", 1, 1, queue="kept")
    file = lab.folder / "celery.log"
    lab.wait_for(lambda: f"proj.add[{task_id}] succeeded" in file.read_text(), "the line of a task")
    assert " ready." in file.read_text()


def test_the_folder_of_a_log_file_is_made(lab: Lab) -> None:
    call(lab, "-c", "1", "-Q", "file", "-l", "info", "-f", "logs/of/%n.log")
    file = lab.folder / "logs" / "of" / "celery.log"
    lab.wait_for(lambda: file.exists() and " ready." in file.read_text(), "it logs there")


def test_a_log_file_that_cannot_be_written_is_one_clear_line(lab: Lab) -> None:
    (lab.folder / "a-file").touch()
    running = call(lab, "-f", "a-file/x.log")
    assert running.wait() == 2
    assert running.output().startswith("opsq: cannot log to a-file/x.log: ")


# -- what is refused, and what changes nothing -----------------------------------------------------------------------

REFUSED = {
    "redis_backend_credential_provider": "mine:Provider",
    "task_protocol": "1",
    "task_retry_on_worker_lost": "yes",
    "worker_agent": "mine:Agent",
    "worker_bootsteps": "mine:Step",
    "worker_consumer": "mine:Consumer",
    "worker_timer": "mine:Timer",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_that_opsq_does_not_have_is_refused_with_what_to_do(lab: Lab, name: str) -> None:
    variable = f"CELERY_{name.upper()}"
    running = call(lab, **{variable: REFUSED[name]})
    assert running.wait() == 2
    said = running.output()
    assert f"opsq: cannot work with {name} = " in said
    assert f"(environment {variable})" in said
    assert "hint: " in said


def test_a_scheduler_that_is_not_there_is_refused(lab: Lab) -> None:
    setting = {"CELERY_BEAT_SCHEDULER": "nowhere.to:BeFound"}
    running = lab.spawn([*labs.OPSQ, "-A", "proj", "beat"], env={**lab.environment, **setting}, cwd=lab.folder)
    assert running.wait() == 2
    assert "nowhere.to:BeFound" in running.output()


def test_settings_without_effect_are_named_once_and_celerys_own_defaults_are_not_refused(lab: Lab) -> None:
    own = {"CELERY_WORKER_CONSUMER": "celery.worker.consumer:Consumer", "CELERY_TASK_PROTOCOL": "2"}
    running = lab.worker("-c", "1", "-Q", "inert", CELERY_BROKER_POOL_LIMIT="5", CELERY_WORKER_LOST_WAIT="3", **own)
    lines = [line for line in running.output().splitlines() if "settings without effect" in line]
    assert len(lines) == 1
    assert "broker_pool_limit, worker_lost_wait (" in lines[0]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("CELERY_WORKER_MAX_TASKS_PER_CHILD", "many", "many"),
        ("OPSQ_TASK_ACKS_LATE", "perhaps", "'perhaps' is neither yes nor no"),
        ("CELERY_TASK_ROUTES", '{"a"', "task_routes"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(lab: Lab, variable: str, value: str, said: str) -> None:
    running = call(lab, **{variable: value})
    assert running.wait() == 2
    assert running.output().startswith("opsq: ")
    assert said in running.output()
    assert "Traceback" not in running.output()
