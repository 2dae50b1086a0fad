"""Who is told what: signals of workers and tasks, handlers of task classes, in Celery's order and words."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest
from support import lab as labs
from support.lab import Lab

TASKS = """
from opsq import Task, signals

SEEN = []


def told(name):
    def receiver(sender=None, signal=None, **named):
        who = sender if isinstance(sender, str) else getattr(sender, "name", type(sender).__name__)
        mark("signal-" + name, str(who) + " " + ",".join(sorted(named)))

    return receiver


for name in (
    "celeryd_init", "worker_init", "worker_ready", "worker_process_init", "worker_process_shutdown",
    "worker_shutting_down", "worker_shutdown", "task_prerun", "task_postrun", "task_success", "task_failure",
    "task_retry", "task_unknown", "before_task_publish", "after_task_publish", "celeryd_after_setup",
    "task_received", "task_revoked", "task_rejected", "task_internal_error",
):
    getattr(signals, name).connect(told(name), weak=False)


@signals.celeryd_init.connect
def configure(sender=None, conf=None, instance=None, options=None, **_others):
    conf.task_soft_time_limit = 0.25
    mark("instance", f"{instance.hostname} {instance.app.main}")


@signals.task_revoked.connect
def revoked(sender=None, request=None, terminated=None, signum=None, expired=None, **_others):
    mark("revoked", f"{sender.name} {request.id} {terminated} {signum} {expired}")


class Trap(Task):
    # A fault of opsq's own is played by a class attribute that breaks when its plan is made.
    @property
    def acks_late(self):
        raise RuntimeError("a fault nobody has foreseen")

    @acks_late.setter
    def acks_late(self, value):
        pass


@app.task(base=Trap)
def trip():
    mark("trip ran")


@signals.worker_init.connect
def remember(**_others):
    SEEN.append("worker_init")


@signals.worker_process_init.connect
def connect(**_others):
    SEEN.append("process_init in %d" % os.getpid())


@signals.task_prerun.connect(sender="proj.watched")
def prerun(task_id=None, task=None, args=None, kwargs=None, **_others):
    mark("prerun", f"{task_id} {task.name} {args} {kwargs}")


@signals.task_postrun.connect(sender="proj.watched")
def postrun(task_id=None, task=None, retval=None, state=None, **_others):
    mark("postrun", f"{task_id} {state} {retval!r}")


@signals.task_success.connect
def failing_receiver(sender=None, **_others):
    if sender.name == "proj.watched":
        raise RuntimeError("a receiver's own fault")


@signals.task_failure.connect
def failed(sender=None, task_id=None, exception=None, traceback=None, einfo=None, args=None, **_others):
    last = str(einfo).strip().splitlines()[-1] if einfo else ""
    mark("failed", f"{sender.name} {task_id} {exception!r} {last} {traceback is not None}")


@signals.task_retry.connect
def retried(sender=None, request=None, reason=None, einfo=None, **_others):
    mark("retried", f"{sender.name} {request.id} {reason}")


@app.task
def what_was_seen():
    return [os.getpid(), SEEN]


@app.task
def watched(x, y=0):
    return x + y


@app.task
def fail():
    raise ValueError("bad")


@app.task(bind=True, default_retry_delay=0)
def again(self):
    if not self.request.retries:
        raise self.retry(exc=ValueError("not yet"))


class Base(Task):
    def before_start(self, task_id, args, kwargs):
        mark("handler", f"before_start {task_id} {args}")

    def on_success(self, retval, task_id, args, kwargs):
        mark("handler", f"on_success {task_id} {retval}")

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        mark("handler", f"on_failure {task_id} {exc!r} {einfo.type.__name__}")

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        mark("handler", f"on_retry {task_id} {exc!r}")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        mark("handler", f"after_return {task_id} {status} {retval!r}")


@app.task(base=Base, bind=True, default_retry_delay=0)
def based(self, how):
    if how == "fail":
        raise ValueError("bad")
    if how == "retry" and not self.request.retries:
        raise self.retry(exc=KeyError("not yet"))
    return how


class Counting(Task):
    _count = None

    @property
    def count(self):
        if self._count is None:
            self._count = []
        return self._count

    def __call__(self, *args, **kwargs):
        self.count.append(1)
        return [len(self.count), self.run(*args, **kwargs)]


@app.task(base=Counting)
def counted(x):
    return x


class Broken(Task):
    def on_success(self, *args):
        raise RuntimeError("a handler's own fault")


@app.task(base=Broken)
def broken_handler():
    return "fine"


class Refusing(Task):
    def before_start(self, task_id, args, kwargs):
        raise ValueError("not today")


@app.task(base=Refusing)
def refused():
    mark("refused ran")


class ByClass(Task):
    name = "proj.by_class"

    def run(self, x):
        return [x, self.name, self.request.retries]


app.register_task(ByClass())
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        lab.worker("-c", "1", "-n", "w@here", name="worker")
        yield lab


def signalled(lab: Lab, name: str) -> list[labs.Mark]:
    return lab.written(f"signal-{name}")


def handled(lab: Lab, task_id: str) -> list[str]:
    found = [mark.text for mark in lab.written("handler") if task_id in mark.text]
    return [text.replace(f" {task_id}", "") for text in found]


def test_a_worker_is_announced_before_it_forks_and_children_know_it(lab: Lab) -> None:
    pid, seen = lab.run("what_was_seen")
    assert seen == ["worker_init", f"process_init in {pid}"]
    parent = lab.spawn.running[0].pid
    names = ("celeryd_init", "celeryd_after_setup", "worker_init", "worker_ready")
    marks = [mark for name in names for mark in signalled(lab, name)]
    told = [(mark.what, mark.text) for mark in sorted(marks, key=lambda mark: mark.time) if mark.pid == parent]
    assert [what.removeprefix("signal-") for what, _text in told] == [
        *("celeryd_init", "celeryd_after_setup", "worker_init", "worker_ready")
    ]
    assert lab.written("instance")[0].text == "w@here proj"
    assert told[0][1] == "w@here conf,instance,options"
    assert [mark.pid for mark in signalled(lab, "worker_process_init")].count(pid) == 1


def test_what_a_receiver_of_celeryd_init_changes_counts(lab: Lab) -> None:
    assert lab.result(lab.send("nap", "limited", 30), "FAILURE")["result"]["exc_type"] == "SoftTimeLimitExceeded"


def test_a_run_is_told_before_and_after_with_its_call_and_its_end(lab: Lab) -> None:
    task_id = lab.send("watched", 1, _kwargs={"y": 2})
    assert lab.value(task_id) == 3
    assert lab.wait_mark("prerun", f"{task_id} proj.watched [1] {{'y': 2}}")
    assert lab.wait_mark("postrun", f"{task_id} SUCCESS 3")
    order = [mark.what for mark in lab.written() if mark.text.startswith("proj.watched ")]
    assert order[-3:] == ["signal-task_prerun", "signal-task_success", "signal-task_postrun"]
    assert "a receiver of the signal task_success failed" in lab.spawn.running[0].output()


def test_a_failure_is_told_with_its_error_and_traceback(lab: Lab) -> None:
    task_id = lab.send("fail")
    lab.result(task_id, "FAILURE")
    found = lab.wait_for(lambda: [m.text for m in lab.written("failed") if task_id in m.text], "it is told")
    assert found == [f"proj.fail {task_id} ValueError('bad') ValueError: bad True"]


def test_a_retry_is_told_with_its_reason(lab: Lab) -> None:
    task_id = lab.send("again")
    lab.result(task_id)
    found = [mark.text for mark in lab.written("retried") if task_id in mark.text]
    assert found == [f"proj.again {task_id} Retry in 0s: ValueError('not yet')"]


def test_an_unknown_task_is_told(lab: Lab) -> None:
    lab.result(lab.send("unheard_of"), "FAILURE")
    assert signalled(lab, "task_unknown")[-1].text.endswith("exc,id,message,name")


def test_the_soft_limits_warning_names_the_task(lab: Lab) -> None:
    task_id = lab.send("nap", "named", 30)
    lab.result(task_id, "FAILURE")
    line = f"Soft time limit (0.25s) exceeded for proj.nap[{task_id}]"
    lab.wait_for(lambda: line in lab.spawn.running[0].output(), line)


def test_what_is_taken_thrown_away_or_refused_is_told(lab: Lab) -> None:
    good, late = lab.send("add", 1, 2), lab.send("add", 1, 2, expires=-9)
    lab.value(good)
    assert lab.wait_mark("revoked", f"proj.add {late} False None True")
    assert signalled(lab, "task_received")[-1].text.endswith(" request")
    before = len(signalled(lab, "task_rejected"))
    lab.redis.lpush("celery", b"no message", labs.message("add", labs.new_id(), expires="no time"))
    lab.wait_for(lambda: len(signalled(lab, "task_rejected")) == before + 2, "both are told")
    assert signalled(lab, "task_rejected")[-1].text.endswith(" exc,message")


def test_a_fault_of_opsqs_own_is_told(lab: Lab) -> None:
    task_id = lab.send("trip")
    lab.wait_for(lambda: task_id in lab.dead(), "its message is a dead letter")
    assert not lab.written("trip ran")
    told = lab.wait_for(lambda: signalled(lab, "task_internal_error"), "it is told")
    assert told[-1].text.endswith(" args,einfo,exception,kwargs,request,task_id,traceback")


@pytest.mark.parametrize(
    ("how", "handlers"),
    [
        ("fine", ["before_start ['fine']", "on_success fine", "after_return SUCCESS 'fine'"]),
        (
            "fail",
            [
                "before_start ['fail']",
                "on_failure ValueError('bad') ValueError",
                "after_return FAILURE ValueError('bad')",
            ],
        ),
        (
            "retry",
            [
                "before_start ['retry']",
                "on_retry KeyError('not yet')",
                "before_start ['retry']",
                "on_success retry",
                "after_return SUCCESS 'retry'",
            ],
        ),
    ],
)
def test_handlers_of_the_tasks_class_are_called(lab: Lab, how: str, handlers: list[str]) -> None:
    task_id = lab.send("based", how)
    lab.wait_for(lambda: len(handled(lab, task_id)) == len(handlers), "all are called")
    found = [re.sub(r"Retry\(.*", "Retry", text) for text in handled(lab, task_id)]
    assert found == handlers


def test_a_class_with_its_own_call_keeps_its_state_between_tasks(lab: Lab) -> None:
    first, value = lab.run("counted", "a")
    assert value == "a"
    assert lab.run("counted", "b") == [first + 1, "b"]


def test_a_handler_that_fails_changes_no_result(lab: Lab) -> None:
    assert lab.run("broken_handler") == "fine"
    assert "a handler's own fault" in lab.spawn.running[0].output()


def test_a_task_that_is_refused_before_it_starts_has_failed(lab: Lab) -> None:
    assert lab.result(lab.send("refused"), "FAILURE")["result"]["exc_message"] == ["not today"]
    assert not lab.written("refused ran")


def test_a_task_that_is_a_class_runs(lab: Lab) -> None:
    assert lab.run("by_class", 1) == [1, "proj.by_class", 0]


def test_the_end_of_a_worker_is_told_by_each_of_its_processes(lab: Lab) -> None:
    running = lab.worker("-c", "2", "-Q", "ending", "-n", "ending@here", name="ending")
    assert running.stop() == 0
    for name in ("worker_shutting_down", "worker_shutdown"):
        assert [mark.pid for mark in signalled(lab, name)].count(running.pid) == 1
    assert signalled(lab, "worker_shutting_down")[-1].text.endswith("exitcode,how,sig")
    children = {mark.pid for mark in signalled(lab, "worker_process_init")}
    ended = [mark for mark in signalled(lab, "worker_process_shutdown") if mark.pid in children]
    assert len(ended) >= 2
    assert ended[-1].text.endswith("exitcode,pid")


def test_children_of_a_reloaded_worker_know_what_the_first_ones_knew(lab: Lab) -> None:
    running = lab.worker("-c", "1", "-Q", "reload", "-n", "reload@here", name="reload")
    first, seen = lab.run("what_was_seen", queue="reload")
    assert seen[0] == "worker_init"
    running.send(signal.SIGHUP)

    def second() -> object:
        pid, seen = lab.run("what_was_seen", queue="reload")
        return seen if pid != first else None

    assert lab.wait_for(second, "a new child answers", 20)[0] == "worker_init"
    assert running.stop() == 0
