"""Every signal of Celery's is sent at its moment, with Celery's arguments: what receivers wrote down, by process."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pytest
from support.lab import Lab, message, new_id, opened
from support.processes import Running

from opsq import signals

PROJECT = """
import json

from opsq import signals
from opsq.exceptions import Reject

HEARD = os.open(os.environ["MARKS"] + ".heard", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
NAMED = ("task_id", "sig", "how", "runtime", "retval", "state", "result", "terminated", "expired", "pid", "target")


def listen(name):
    def receiver(signal, sender, **told):
        told.pop("self", None)
        line = {"signal": name, "sender": str(getattr(sender, "name", sender)), "keys": sorted(told), "at": os.getpid()}
        line["values"] = {key: str(told[key]) for key in NAMED if key in told}
        if "request" in told:
            line["values"]["request"] = told["request"].id
        os.write(HEARD, (json.dumps(line) + "\\n").encode())

    getattr(signals, name).connect(receiver, weak=False)


for name, value in list(vars(signals).items()):
    if isinstance(value, signals.Signal) and (name != "setup_logging" or "LOGS" in os.environ):
        listen(name)


@app.task(bind=True, max_retries=1)
def again(self):
    if not self.request.retries:
        raise self.retry(countdown=0)


@app.task
def boom():
    raise ValueError("boom")


app.conf.beat_schedule = {"often": {"task": "proj.add", "schedule": 3600.0, "args": (1, 1)}}
"""


@dataclass(frozen=True)
class Heard:
    """A signal as a receiver got it."""

    signal: str
    sender: str
    keys: tuple[str, ...]
    at: int
    values: dict[str, str]


def heard(lab: Lab, signal: str | None = None) -> list[Heard]:
    path = lab.folder / "marks.heard"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [Heard(**{**json.loads(line), "keys": tuple(json.loads(line)["keys"])}) for line in lines]
    return [each for each in found if signal in (None, each.signal)]


def hear(lab: Lab, signal: str, **values: str) -> Heard:
    """The first one of this kind, with these values."""

    def find() -> Heard | None:
        return next((each for each in heard(lab, signal) if values.items() <= each.values.items()), None)

    found: Heard = lab.wait_for(find, f"{signal} {values}", 20)
    return found


@contextmanager
def _project(factory: pytest.TempPathFactory, name: str) -> Iterator[Lab]:
    with opened(factory, PROJECT, name) as lab:
        yield lab


@dataclass(frozen=True)
class Life:
    """A worker from its start to its end, and what it ran."""

    lab: Lab
    worker: Running
    ids: dict[str, str]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """One worker has run a task of each kind, and has been stopped."""
    with _project(tmp_path_factory, "life") as lab:
        worker = lab.worker("-c", "1", "--heartbeat-interval", "0.2")
        ids = {name: lab.send(name) for name in ("again", "boom")}
        ids["add"] = lab.send("add", 2, 2)
        ids["unknown"], ids["expired"] = new_id(), lab.send("add", 1, 1, expires=-1)
        lab.push("celery", ("unknown",))
        lab.redis.lpush("celery", b"no message")
        bad = message("add", new_id(), (1, 1), eta="no time")
        lab.redis.lpush("celery", bad)
        lab.value(ids["add"])
        for signal in ("task_rejected", "task_unknown", "task_revoked", "heartbeat_sent"):
            hear(lab, signal)
        lab.value(ids["again"])
        lab.result(ids["boom"], "FAILURE")
        assert worker.stop() == 0
        yield Life(lab, worker, ids)


#: What Celery 5.7 tells, besides `signal` and `sender`, in signals of a worker and its tasks.
TOLD: dict[str, set[str]] = {
    "celeryd_init": {"instance", "conf", "options"},
    "celeryd_after_setup": {"instance", "conf"},
    "import_modules": set(),
    "worker_init": set(),
    "worker_before_create_process": set(),
    "worker_process_init": set(),
    "worker_ready": set(),
    "heartbeat_sent": set(),
    "worker_shutting_down": {"sig", "how", "exitcode"},
    "worker_process_shutdown": {"pid", "exitcode"},
    "worker_shutdown": set(),
    "task_received": {"request"},
    "task_prerun": {"task_id", "task", "args", "kwargs"},
    "task_postrun": {"task_id", "task", "args", "kwargs", "retval", "state"},
    "task_success": {"result", "runtime"},
    "task_failure": {"task_id", "exception", "args", "kwargs", "traceback", "einfo"},
    "task_retry": {"request", "reason", "einfo"},
    "task_unknown": {"message", "exc", "name", "id"},
    "task_revoked": {"request", "terminated", "signum", "expired"},
    "task_rejected": {"message", "exc"},
    "after_setup_logger": {"logger", "loglevel", "logfile", "format", "colorize"},
    "after_setup_task_logger": {"logger", "loglevel", "logfile", "format", "colorize"},
    "user_preload_options": {"app", "options"},
}


@pytest.mark.parametrize("signal", TOLD)
def test_a_worker_tells_what_celery_tells(life: Life, signal: str) -> None:
    found = heard(life.lab, signal)
    assert found, f"{signal} was not sent"
    assert {each.keys for each in found} == {tuple(sorted(TOLD[signal]))}


def test_each_is_told_in_its_process_and_in_its_order(life: Life) -> None:
    order = [each.signal for each in heard(life.lab)]
    parent = life.worker.pid
    of_parent = ("celeryd_init", "celeryd_after_setup", "worker_init", "worker_ready", "worker_shutting_down")
    assert {each.at for signal in (*of_parent, "worker_shutdown") for each in heard(life.lab, signal)} == {parent}
    assert [order.index(signal) for signal in of_parent] == sorted(order.index(signal) for signal in of_parent)
    assert order[-1] == "worker_shutdown"
    (child,) = {each.at for each in heard(life.lab, "worker_process_init")}
    assert child != parent
    assert {each.at for each in heard(life.lab, "task_prerun")} == {child}
    assert order.index("worker_before_create_process") < order.index("worker_process_init")
    (ended,) = heard(life.lab, "worker_process_shutdown")
    assert (ended.at, ended.values["pid"]) == (child, str(child))
    (ending,) = heard(life.lab, "worker_shutting_down")
    assert (ending.values["sig"], ending.values["how"], ending.sender) == ("SIGTERM", "Warm", _node(life))


def _node(life: Life) -> str:
    return heard(life.lab, "celeryd_init")[0].sender


def test_each_is_told_of_its_task(life: Life) -> None:
    ids = life.ids
    success = hear(life.lab, "task_success", result="4")
    assert success.sender == "proj.add"
    assert 0 <= float(success.values["runtime"]) < 10
    assert hear(life.lab, "task_postrun", task_id=ids["boom"], state="FAILURE").sender == "proj.boom"
    assert hear(life.lab, "task_failure", task_id=ids["boom"])
    assert hear(life.lab, "task_retry", request=ids["again"])
    assert hear(life.lab, "task_revoked", request=ids["expired"], expired="True", terminated="False")
    assert len(heard(life.lab, "task_rejected")) == 2
    order = [(each.signal, each.values.get("task_id")) for each in heard(life.lab)]
    assert order.index(("task_prerun", ids["add"])) < order.index(("task_postrun", ids["add"]))


def test_a_cold_stop_is_told_after_the_warm_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    with _project(tmp_path_factory, "cold") as lab:
        worker = lab.worker("-c", "1")
        lab.send("nap", "long", 60)
        lab.wait_mark("begin", "long")
        worker.send(15)
        hear(lab, "worker_shutting_down", how="Warm")
        time.sleep(0.6)  # what comes sooner counts as the same wish
        worker.send(3)
        worker.wait()
        assert [each.values["sig"] for each in heard(lab, "worker_shutting_down")] == ["SIGTERM", "SIGQUIT"]


def test_logs_can_be_set_up_by_signal(tmp_path_factory: pytest.TempPathFactory) -> None:
    with _project(tmp_path_factory, "logs") as lab:
        worker = lab.worker("-c", "1", ready=False, LOGS="mine")
        hear(lab, "worker_ready")
        assert worker.stop() == 0
        assert " ready." not in worker.output()
        assert set(heard(lab, "setup_logging")[0].keys) == {"loglevel", "logfile", "format", "colorize"}
        assert not heard(lab, "after_setup_logger")


def test_the_beat_tells_of_itself_also_inside_a_worker(tmp_path_factory: pytest.TempPathFactory) -> None:
    with _project(tmp_path_factory, "beat") as lab:
        argv = [sys.executable, "-m", "opsq", "-A", "proj", "beat"]
        beat = lab.spawn(argv, env=lab.environment, cwd=lab.folder)
        assert hear(lab, "beat_init").at == beat.pid
        assert beat.stop() == 0
        lab.worker("-c", "1", "-B")
        assert hear(lab, "beat_embedded_init").keys == ()


@pytest.mark.skipif(find_spec("eventlet") is None, reason="eventlet is not installed")
def test_the_eventlet_pool_tells_of_its_runs(tmp_path_factory: pytest.TempPathFactory) -> None:
    with _project(tmp_path_factory, "eventlet") as lab:
        worker = lab.worker("-P", "eventlet", "-c", "2")
        assert lab.run("add", 2, 2) == 4
        assert worker.stop() == 0
        names = ["eventlet_pool_started", "eventlet_pool_apply"]
        names += ["eventlet_pool_preshutdown", "eventlet_pool_postshutdown"]
        order = [each.signal for each in heard(lab) if each.signal in names]
        assert order == names
        assert heard(lab, "eventlet_pool_apply")[0].keys == ("args", "kwargs", "target")


@pytest.fixture
def told_here() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """What is told around calls in this process."""
    found: list[tuple[str, dict[str, Any]]] = []
    connected = []
    for name in ("before_task_publish", "after_task_publish", "task_sent"):

        def receiver(sender: Any, signal: Any, _name: str = name, **told: Any) -> None:
            assert signal.name == _name
            found.append((_name, {**told, "sender": sender}))

        getattr(signals, name).connect(receiver, weak=False)
        connected.append((getattr(signals, name), receiver))
    yield found
    for signal, receiver in connected:
        signal.disconnect(receiver)


def test_a_call_is_told_before_and_after_it_was_sent(life: Life, told_here: list[tuple[str, dict[str, Any]]]) -> None:
    task_id = life.lab.send("add", 1, 2, queue="nobody")
    before, after, sent = told_here
    assert [name for name, _ in told_here] == ["before_task_publish", "after_task_publish", "task_sent"]
    keys = {"sender", "body", "exchange", "routing_key", "headers"}
    assert set(before[1]) == {*keys, "properties", "declare", "retry_policy"}
    assert set(after[1]) == keys
    assert set(sent[1]) == {"sender", "task_id", "task", "args", "kwargs", "eta", "taskset"}
    assert (before[1]["sender"], after[1]["headers"]["id"], sent[1]["task_id"]) == ("proj.add", task_id, task_id)
    life.lab.redis.delete("nobody")


def test_no_signal_is_left_out() -> None:
    mine = {name for name, value in vars(signals).items() if isinstance(value, signals.Signal)}
    # `task_internal_error` is shown in test_worker_signals.py, with all that follows a fault.
    elsewhere = {"before_task_publish", "after_task_publish", "task_sent", "setup_logging", "task_internal_error"}
    elsewhere |= {"beat_init", "beat_embedded_init", *(name for name in mine if name.startswith("eventlet_"))}
    assert mine == {*TOLD, *elsewhere}
