"""What a worker tells as events, when, and who is told of tasks that were killed or lost."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from support import lab as labs
from support.lab import Lab

from opsq import App
from opsq.broker import stats
from opsq.events import event
from opsq.events.event import Event

TASKS = """
from opsq import Task, signals
from opsq.exceptions import Ignore, Reject

if "TASK_EVENTS" in os.environ:
    app.conf.worker_send_task_events = os.environ["TASK_EVENTS"] == "yes"


@app.task
def boom():
    raise ValueError("bad")


@app.task(bind=True, default_retry_delay=0)
def again(self):
    if not self.request.retries:
        raise self.retry(exc=KeyError("not yet"))


@app.task
def reject(requeue=False):
    raise Reject("no", requeue=requeue)


@app.task
def ignore():
    raise Ignore()


@app.task(send_events=False)
def silent():
    return "silent"


class Told(Task):
    def on_failure(self, exc, task_id, args, kwargs, einfo):
        last = einfo.traceback.splitlines()[-1]
        mark("on_failure", f"{task_id} {exc!r} {args} {self.request.id} {last}")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        mark("after_return", f"{task_id} {status}")


@app.task(base=Told)
def told(text, seconds=30):
    mark("begin", text)
    time.sleep(seconds)


@signals.task_failure.connect
def failed(sender=None, task_id=None, exception=None, **_others):
    mark("task_failure", f"{sender.name} {task_id} {type(exception).__name__}")
"""
MULTI = "/0.celeryev/task.multi"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        yield lab


@pytest.fixture
def worker(lab: Lab) -> Iterator[Any]:
    """Starts workers that end with the test."""

    def start(*options: str, **environment: str) -> Any:
        return lab.worker("-c", "1", *options, **environment)

    yield start
    lab.end_workers()


class Ear:
    """Hears events, and keeps them."""

    def __init__(self, lab: Lab, pattern: str) -> None:
        self._lab, self.events = lab, list[Event]()
        self.channels: set[str] = set()
        self._pubsub = lab.redis.pubsub(ignore_subscribe_messages=True)
        self._pubsub.psubscribe(pattern)
        self._pubsub.get_message(timeout=5)

    def listen(self) -> list[Event]:
        while (message := self._pubsub.get_message(timeout=0.01)) is not None:
            self.channels.add(message["channel"].decode())
            self.events += event.read(message["data"])
        return self.events

    def of(self, task_id: str) -> list[str]:
        """The types of a task's events so far, in their order."""
        return [each["type"].removeprefix("task-") for each in self.listen() if each.get("uuid") == task_id]

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        return self._lab.wait_for(lambda: self.listen() is not None and condition(), what)

    def wait_end(self, task_id: str, *kinds: str) -> list[str]:
        """The task's events once the last of these was heard."""
        self.wait(lambda: kinds[-1] in self.of(task_id), f"{kinds} of {task_id}")
        return self.of(task_id)

    def close(self) -> None:
        self._pubsub.close()


@pytest.fixture
def ear(lab: Lab) -> Iterator[Callable[..., Ear]]:
    """`ear(pattern)` begins to listen, as a monitor does."""
    made: list[Ear] = []

    def listen(pattern: str = "/0.celeryev/*") -> Ear:
        made.append(Ear(lab, pattern))
        return made[-1]

    yield listen
    for each in made:
        each.close()


def attached(lab: Lab, listening: Ear) -> Ear:
    """The worker knows that somebody listens: it has told of a task."""
    call(lab)

    def told() -> bool:
        task_id = lab.send("add", 1, 1)
        lab.value(task_id)
        return bool(listening.of(task_id))

    listening.wait(told, "the worker tells of its tasks")
    return listening


def call(lab: Lab, method: str = "heartbeat") -> None:
    """What a monitor says when it attaches."""
    body = json.dumps({"method": method, "arguments": {}, "destination": None})
    lab.redis.publish("/0.celery.pidbox", json.dumps({"body": body, "content-type": "application/json"}))


def test_each_task_is_told_of_from_its_begin_to_its_end(lab: Lab, worker: Any, ear: Any) -> None:
    listening = ear()
    running = worker()
    attached(lab, listening)
    good, bad, retried, expired = (
        lab.send("add", 2, 3),
        lab.send("boom"),
        lab.send("again"),
        lab.send("add", expires=-9),
    )
    assert listening.wait_end(good, "succeeded") == ["received", "started", "succeeded"]
    assert listening.wait_end(bad, "failed") == ["received", "started", "failed"]
    assert listening.wait_end(expired, "revoked") == ["revoked"]
    ended = listening.wait_end(retried, "succeeded")
    assert ended == ["received", "started", "retried", "received", "started", "succeeded"]
    assert listening.wait_end(lab.send("reject"), "rejected") == ["received", "started", "failed", "rejected"]
    assert listening.wait_end(lab.send("unheard_of"), "failed") == ["failed"]
    received, _started, succeeded = (each for each in listening.events if each.get("uuid") == good)
    assert (received["name"], received["args"], received["retries"]) == ("proj.add", "(2, 3)", 0)
    assert (succeeded["result"], succeeded["runtime"] >= 0) == ("5", True)
    (failed,) = (each for each in listening.events if each.get("uuid") == bad and each["type"] == "task-failed")
    assert failed["exception"] == "ValueError('bad')"
    assert failed["traceback"].endswith("ValueError: bad\n")
    assert {MULTI, "/0.celeryev/worker.online", "/0.celeryev/worker.heartbeat"} == listening.channels
    assert running.stop() == 0
    listening.wait(lambda: listening.events[-1]["type"] == "worker-offline", "it says goodbye")
    clocks = [each["clock"] for each in listening.events if each.get("uuid") == retried]
    assert clocks == sorted(set(clocks))


def test_a_long_task_is_told_of_while_it_runs(lab: Lab, worker: Any, ear: Any) -> None:
    worker("-c", "2")
    listening = attached(lab, ear())
    task_id = lab.send("nap", "long", 30)
    assert listening.wait_end(task_id, "started") == ["received", "started"]
    beat = listening.wait(lambda: [each for each in listening.events if each.get("active") == 1], "it is counted")[0]
    assert beat["processed"] >= 1
    os.kill(lab.wait_mark("begin", "long").pid, signal.SIGKILL)
    assert listening.wait_end(task_id, "failed") == ["received", "started", "failed"]


def test_signs_of_life_are_rare_until_somebody_hears_one(lab: Lab, worker: Any, ear: Any) -> None:
    worker("--heartbeat-interval", "0.05")
    lab.run("add", 1, 1)
    with redis.Redis.from_url(lab.server.url(), socket_timeout=10).monitor() as monitor:
        listening = iter(monitor.listen())
        ids = [lab.send("nap", labs.new_id(), 0.05) for _ in range(20)]  # they take the time of many signs
        seen: list[str] = []
        while not any(ids[-1] in command and command.startswith("SETEX") for command in seen):
            seen.append(next(listening)["command"])
    assert sum(command.startswith("PUBLISH /0.celeryev/worker.") for command in seen) < 5
    beats = ear("/0.celeryev/worker.*")
    beats.wait(lambda: len(beats.events) > 10, "it is heard, and tells often")


def test_a_sign_of_life_that_nobody_hears_goes_along_with_a_renewal(lab: Lab, worker: Any) -> None:
    worker("--heartbeat-interval", "0.5", "--lease", "7")
    with redis.Redis.from_url(lab.server.url(), socket_timeout=10).monitor() as monitor:
        listening = iter(monitor.listen())
        before: dict[str, Any] = next(listening)
        while not (found := next(listening))["command"].startswith("PUBLISH /0.celeryev/worker.heartbeat"):
            before = found
    assert found["time"] - before["time"] < 0.3, "a renewal comes every 2.3 s"


def test_nothing_of_tasks_is_published_while_nobody_listens_to_tasks(lab: Lab, worker: Any, ear: Any) -> None:
    """Celery's workers listen to each other's worker events; that is no reason to tell of tasks."""
    beats = ear("/0.celeryev/worker.*")
    worker("--heartbeat-interval", "0.1")
    before = len(beats.listen())
    beats.wait(lambda: len(beats.events) > before + 2, "heartbeats")
    with redis.Redis.from_url(lab.server.url(), socket_timeout=10).monitor() as monitor:
        listening = iter(monitor.listen())
        ids = [lab.send("add", number, 1) for number in range(20)]
        seen: list[str] = []
        while not any(ids[-1] in command and command.startswith("SETEX") for command in seen):
            seen.append(next(listening)["command"])
    told = [command for command in seen if command.startswith(f"PUBLISH {MULTI}")]
    assert all('"body": "W10="' in command.replace("\\", "") for command in told), "only the question who listens"


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        (["-E"], {}, True),
        ([], {"TASK_EVENTS": "yes"}, True),
        ([], {"TASK_EVENTS": "no"}, False),
        (["-E", "--without-heartbeat"], {}, True),
        (["--without-heartbeat"], {}, False),
    ],
)
def test_the_settings_decide_whether_tasks_are_told_of(
    lab: Lab, worker: Any, ear: Any, options: list[str], environment: dict[str, str], expected: bool
) -> None:
    worker(*options, **environment)
    listening = ear()
    call(lab)
    if "--without-heartbeat" not in options:
        listening.wait(lambda: listening.events, "it answers")
    task_ids = [lab.send("add", number, 1) for number in range(3)]
    for task_id in task_ids:
        lab.value(task_id)
    lab.run("add", 1, 1)
    assert (listening.of(task_ids[0]) == ["received", "started", "succeeded"]) is expected
    beats = [each for each in listening.events if each["type"].startswith("worker-")]
    assert bool(beats) is ("--without-heartbeat" not in options)


def test_who_attaches_is_answered_at_once(lab: Lab, worker: Any, ear: Any) -> None:
    worker("--heartbeat-interval", "3600")
    attached(lab, ear())


def test_a_task_that_wants_no_events_has_none(lab: Lab, worker: Any, ear: Any) -> None:
    worker("-E")
    listening = attached(lab, ear())
    silent = lab.send("silent")
    lab.value(silent)
    listening.wait_end(lab.send("add", 1, 1), "succeeded")
    assert listening.of(silent) == []


@pytest.mark.parametrize("how", ["hard time limit", "kill -9"])
def test_of_a_task_that_is_killed_or_lost_its_handlers_are_told(lab: Lab, worker: Any, ear: Any, how: str) -> None:
    running = worker("-l", "info")
    listening = attached(lab, ear())
    text = how.replace(" ", "-")
    task_id = lab.send("told", text, **({"time_limit": 0.2} if how == "hard time limit" else {}))
    pid = lab.wait_mark("begin", text).pid
    if how == "kill -9":
        listening.wait_end(task_id, "started")
        os.kill(pid, signal.SIGKILL)
    name = "TimeLimitExceeded" if how == "hard time limit" else "WorkerLostError"
    lab.wait_mark("task_failure", f"proj.told {task_id} {name}")
    lab.wait_mark("after_return", f"{task_id} FAILURE")
    (told,) = (mark for mark in lab.written("on_failure") if task_id in mark.text)
    assert name in told.text
    assert f"['{text}'] {task_id} opsq.exceptions.{name}: " in told.text  # the last line of its `einfo.traceback`
    assert told.pid not in (pid, running.pid)
    assert listening.wait_end(task_id, "failed") == ["received", "started", "failed"]
    assert running.stop() == 0
    assert not list(lab.folder.rglob("*.epilogue"))
    assert len([mark for mark in lab.written("on_failure") if task_id in mark.text]) == 1


def test_a_worker_that_is_stopped_at_once_still_has_its_lost_tasks_told(lab: Lab, worker: Any) -> None:
    running = worker()
    task_id = lab.send("told", "cold")
    lab.wait_mark("begin", "cold")
    running.send(signal.SIGQUIT)
    assert running.wait() == 0
    assert lab.written("after_return", f"{task_id} FAILURE")


def test_what_came_of_messages_is_counted(lab: Lab, worker: Any) -> None:
    before = stats.totals(lab.app.broker, ["celery"])
    worker()
    for task_id in [lab.send("add", number, 1) for number in range(150)]:
        lab.value(task_id)
    for task in ("boom", "again", "reject", "ignore", "unheard_of"):
        lab.send(task)
    lab.send("add", 1, 1, expires=-9)
    lab.send("add", 1, 1, ignore_result=True)
    lab.send("nap", "counted", 0.3)
    lab.wait_for(lab.is_quiet, "all are done")
    found = {
        (task.removeprefix("proj."), state): (count, seconds)
        for (_queue, task, state), (count, seconds) in _grown(before, stats.totals(lab.app.broker, ["celery"]))
    }
    assert {key: count for key, (count, _seconds) in found.items()} == {
        ("add", "succeeded"): 151,
        ("add", "expired"): 1,
        ("boom", "failed"): 1,
        ("again", "retried"): 1,
        ("again", "succeeded"): 1,
        ("reject", "dead"): 1,
        ("ignore", "ignored"): 1,
        ("unheard_of", "dead"): 1,
        ("nap", "succeeded"): 1,
    }
    assert 0.3 <= found["nap", "succeeded"][1] < 5


def _grown(before: Any, after: Any) -> Iterator[tuple[Any, tuple[int, float]]]:
    for key, total in after.items():
        known = before.get(key, stats.Total(0, 0.0))
        if total.count > known.count:
            yield key, (total.count - known.count, total.runtime_s - known.runtime_s)


def test_who_sends_tells_of_it_when_the_settings_say_so(lab: Lab, ear: Any) -> None:
    listening = ear()
    app = App("client", broker=lab.url, backend=lab.url, set_as_current=False)
    app.conf.task_send_sent_event = True
    task_id = app.send_task("proj.add", (2, 3), queue="elsewhere").id
    (sent,) = listening.wait(lambda: listening.events, "it is told")
    assert listening.channels == {"/0.celeryev/task.sent"}
    assert list(sent) == [
        *("hostname", "utcoffset", "pid", "clock", "uuid", "root_id", "parent_id", "retries", "eta", "expires"),
        *("name", "args", "kwargs", "queue", "exchange", "routing_key", "timestamp", "type"),
    ]
    assert (sent["uuid"], sent["name"], sent["args"], sent["queue"]) == (task_id, "proj.add", "(2, 3)", "elsewhere")
    lab.redis.delete("elsewhere")
