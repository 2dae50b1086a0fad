"""Django's own task interface on opsq: what it promises, in a project without any code of Celery's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import django_world
from support.django_world import SETTINGS, World
from support.peer import PeerError

PROJECT = f"""{SETTINGS}
INSTALLED_APPS = ["opsq.contrib.django", "shop"] + (["django_tasks"] if "INTERFACE" == "django_tasks" else [])
CELERY_BROKER_URL = os.environ["BROKER"]
CELERY_RESULT_BACKEND = os.environ["BROKER"][:-1] + "1"
BACKEND = "opsq.contrib.django.tasks.OpsqBackend"
TASKS = {{
    "default": {{"BACKEND": BACKEND, "QUEUES": ["default", "mail", "order", "loop"]}},
    "safe": {{"BACKEND": BACKEND, "OPTIONS": {{"acks_late": True}}}},
    "hasty": {{"BACKEND": BACKEND, "OPTIONS": {{"soft_time_limit": 0.2, "expires": 3600}}}},
    "any": {{"BACKEND": BACKEND, "QUEUES": []}},
    "here": {{"BACKEND": "INTERFACE.backends.immediate.ImmediateBackend"}},
}}
if "TASK_OPTIONS" in os.environ:
    TASKS["default"]["OPTIONS"] = {{os.environ["TASK_OPTIONS"]: True}}
"""

TASKS = """
import asyncio
import json
import os
import time

from django.dispatch import receiver
from INTERFACE import task
from INTERFACE.signals import task_finished, task_started

MARKS = os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def mark(*what):
    os.write(MARKS, (json.dumps(what) + "\\n").encode())


@receiver(task_started)
def started(sender, task_result, **told):
    mark("started", task_result.id, sender.__name__, task_result.status)


@receiver(task_finished)
def finished(sender, task_result, **told):
    errors = [error.exception_class_path for error in task_result.errors]
    mark("finished", task_result.id, sender.__name__, task_result.status, errors)


class Odd(Exception):
    def __init__(self, one, two):
        super().__init__("odd")


@task
def add(x, y):
    return x + y


@task()
async def add_in_a_loop(x, y):
    await asyncio.sleep(0)
    return x + y


@task(queue_name="loop")
async def rest(path):
    mark("rest")
    while not os.path.exists(path):
        await asyncio.sleep(0.01)


@task
def fail(kind):
    raise {"value": lambda: ValueError("no luck"), "exit": lambda: SystemExit("out"), "odd": lambda: Odd(1, 2)}[kind]()


def double(x):
    return 2 * x


doubled_by_a_worker = task(double)


@task
def give_a_function():
    return add


@task(takes_context=True)
def about(context, *words):
    result = context.task_result
    return {
        "id": result.id, "attempt": context.attempt, "status": result.status, "args": result.args,
        "queue": result.task.queue_name, "priority": result.task.priority, "backend": result.backend,
    }


@task(takes_context=True, backend="safe")
def die_once(context):
    if context.attempt == 1:
        os.kill(os.getpid(), 9)
    return context.task_result.worker_ids


@task
def die():
    os.kill(os.getpid(), 9)


@task(backend="hasty")
def too_long():
    time.sleep(30)


@task
def nap(path):
    mark("nap")
    while not os.path.exists(path):
        time.sleep(0.01)


@task(queue_name="order", takes_context=True)
def in_order(context):
    mark("order", context.task_result.task.priority)


@task(backend="here")
def elsewhere():
    return os.getpid()
"""


@pytest.fixture(scope="module", params=["5.2", "6.0"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    files = {"proj/settings.py": PROJECT, "shop/tasks.py": TASKS}
    with django_world.opened(tmp_path_factory, request.param, files) as world:
        world.start("worker", "-l", "info", "-c", "2", "-Q", "default,mail,later")
        yield world


def enqueue(world: World, call: str) -> str:
    """Make a call of the tasks; its id."""
    return str(world.do(f"from shop import tasks\nanswer = {call}.id"))


def ended(world: World, call: str) -> dict[str, Any]:
    """Make a call of the tasks, and wait for its end."""
    return result(world, enqueue(world, call), wait=True)


def result(world: World, task_id: str, wait: bool = False) -> dict[str, Any]:
    """What any backend says of a call, once it has ended, if that is waited for."""
    found: dict[str, Any] = world.do(
        f"""
        import dataclasses, time
        from {world.interface} import default_task_backend
        until = time.monotonic() + 30
        found = default_task_backend.get_result(task_id)
        while wait and not found.is_finished and time.monotonic() < until:
            time.sleep(0.01)
            found.refresh()
        answer = {{field.name: getattr(found, field.name) for field in dataclasses.fields(found)}}
        answer |= {{"task": found.task.module_path, "status": str(found.status), "attempts": found.attempts}}
        answer["errors"] = [(error.exception_class_path, error.traceback) for error in found.errors]
        """,
        task_id=task_id,
        wait=wait,
    )
    return found


def test_a_call_is_ready_at_once_and_then_successful(world: World) -> None:
    first = world.do(
        """
        from shop import tasks
        sent = tasks.add.enqueue(1, y=2)
        known = tasks.add.get_result(sent.id)
        answer = sent.id, str(sent.status), sent.args, sent.kwargs, sent.attempts, sent.is_finished
        same = known.task == sent.task == tasks.add and known.args == sent.args
        answer += (same and known.enqueued_at == sent.enqueued_at, sent.started_at)
        """
    )
    assert first[1:] == ("READY", [1], {"y": 2}, 0, False, True, None)
    found = result(world, first[0], wait=True)
    assert (found["status"], found["_return_value"], found["attempts"], found["errors"]) == ("SUCCESSFUL", 3, 1, [])
    assert found["enqueued_at"] <= found["started_at"] == found["last_attempted_at"] <= found["finished_at"]
    assert found["worker_ids"] == [f"celery@{os.uname().nodename}"]


def test_calls_and_results_in_a_loop(world: World) -> None:
    answer = world.do(
        """
        import asyncio
        from shop import tasks

        async def ask():
            sent = await tasks.add_in_a_loop.aenqueue(1, 2)
            known = await tasks.add_in_a_loop.aget_result(sent.id)
            while not known.is_finished:
                await asyncio.sleep(0.01)
                await known.arefresh()
            await sent.arefresh()
            return str(sent.status), sent.return_value, known == sent

        answer = asyncio.run(asyncio.wait_for(ask(), 30))
        """
    )
    assert answer == ("SUCCESSFUL", 3, True)


def test_coroutines_run_beside_each_other_in_one_process(world: World, tmp_path: Path) -> None:
    worker = world.start("worker", "-l", "info", "-P", "asyncio", "-c", "20", "-Q", "loop", "-n", "loop@%h")
    ids = [enqueue(world, f"tasks.rest.enqueue({str(tmp_path / 'go')!r})") for _ in range(10)]
    world.wait_for(lambda: world.marks().count(["rest"]) == len(ids), "all have begun, and none has ended")
    (tmp_path / "go").touch()
    assert {result(world, each, wait=True)["status"] for each in ids} == {"SUCCESSFUL"}
    assert worker.stop() == 0, worker.report()


@pytest.mark.parametrize(
    ("kind", "path", "last"),
    [
        ("value", "builtins.ValueError", "ValueError: no luck\n"),
        ("exit", "builtins.SystemExit", "SystemExit: out\n"),
        ("odd", "shop.tasks.Odd", "shop.tasks.Odd: odd\n"),
    ],
)
def test_an_error_keeps_its_class_and_its_traceback(world: World, kind: str, path: str, last: str) -> None:
    found = ended(world, f"tasks.fail.enqueue({kind!r})")
    [(error, traceback)] = found["errors"]
    assert (found["status"], error) == ("FAILED", path)
    assert traceback.startswith("Traceback")
    assert traceback.endswith(last)
    with pytest.raises(PeerError, match="ValueError"):
        world.do("from shop import tasks\ntasks.fail.get_result(i).return_value", i=found["id"])
    known = world.do(
        "from shop import tasks\nanswer = tasks.fail.get_result(i).errors[0].exception_class.__name__", i=found["id"]
    )
    assert known == path.rpartition(".")[2]


def test_a_value_that_json_cannot_hold_is_a_failure(world: World) -> None:
    found = ended(world, "tasks.give_a_function.enqueue()")
    assert (found["status"], found["errors"][0][0]) == ("FAILED", "builtins.TypeError")
    with pytest.raises(PeerError, match="TypeError"):
        enqueue(world, "tasks.add.enqueue(tasks.add, 1)")


def test_a_task_is_told_of_its_call(world: World) -> None:
    found = ended(world, "tasks.about.using(queue_name='mail', priority=70).enqueue('a', 'b')")
    assert found["_return_value"] == {
        "id": found["id"], "attempt": 1, "status": "RUNNING", "args": ["a", "b"],
        "queue": "mail", "priority": 70, "backend": "default",
    }  # fmt: skip


def test_what_was_cut_off_runs_again_where_the_options_say_so(world: World) -> None:
    found = ended(world, "tasks.die_once.enqueue()")
    assert (found["status"], found["attempts"]) == ("SUCCESSFUL", 2)
    assert found["_return_value"] == found["worker_ids"]
    assert found["started_at"] < found["last_attempted_at"]


def test_what_was_cut_off_has_failed_otherwise(world: World) -> None:
    found = ended(world, "tasks.die.enqueue()")
    [(error, traceback)] = found["errors"]
    assert (found["status"], error) == ("FAILED", "opsq.exceptions.WorkerLostError")
    assert "WorkerLostError" in traceback
    told = ["finished", found["id"], "OpsqBackend", "FAILED", ["opsq.exceptions.WorkerLostError"]]
    world.wait_for(lambda: told in world.marks(), "task_finished is told of it")


def test_a_time_limit_of_the_options_holds(world: World) -> None:
    found = ended(world, "tasks.too_long.enqueue()")
    assert (found["status"], found["errors"][0][0]) == ("FAILED", "opsq.exceptions.SoftTimeLimitExceeded")


def test_signals_are_told(world: World) -> None:
    task_id, enqueued = world.do(
        f"""
        from {world.interface}.signals import task_enqueued
        from shop import tasks
        heard = []
        def hear(sender, task_result, **told):
            heard.append((sender.__name__, task_result.id, str(task_result.status)))
        task_enqueued.connect(hear)
        sent = tasks.fail.enqueue("value")
        task_enqueued.disconnect(hear)
        answer = sent.id, heard
        """
    )
    assert enqueued == [("OpsqBackend", task_id, "READY")]
    result(world, task_id, wait=True)
    assert [mark for mark in world.marks() if mark[1:2] == [task_id]] == [
        ["started", task_id, "OpsqBackend", "RUNNING"],
        ["finished", task_id, "OpsqBackend", "FAILED", ["builtins.ValueError"]],
    ]


def test_a_running_call_says_so(world: World, tmp_path: Path) -> None:
    task_id = enqueue(world, f"tasks.nap.enqueue({str(tmp_path / 'go')!r})")
    world.wait_for(lambda: ["nap"] in world.marks(), "it runs")
    found = result(world, task_id)
    assert (found["status"], found["attempts"], found["finished_at"]) == ("RUNNING", 1, None)
    (tmp_path / "go").touch()
    assert result(world, task_id, wait=True)["status"] == "SUCCESSFUL"


def test_higher_priorities_run_first(world: World) -> None:
    priorities = [-100, -50, 0, 100]
    for priority in priorities:
        enqueue(world, f"tasks.in_order.using(priority={priority}).enqueue()")
    worker = world.start("worker", "-l", "info", "-c", "1", "-Q", "order", "-n", "order@%h")
    ran = lambda: [mark[1] for mark in world.marks() if mark[0] == "order" and mark[1] in priorities]  # noqa: E731
    world.wait_for(lambda: len(ran()) == len(priorities), "all have run")
    assert ran() == priorities[::-1]
    assert worker.stop() == 0, worker.report()


def test_a_call_for_later_waits(world: World) -> None:
    task_id = world.do(
        """
        from datetime import timedelta
        from django.utils import timezone
        from shop import tasks
        later = tasks.add.using(run_after=timezone.now() + timedelta(seconds=2))
        sent = later.enqueue(1, 2)
        known = later.get_result(sent.id)
        assert known.task == later and known.status == "READY", known
        answer = sent.id
        """
    )
    found = result(world, task_id, wait=True)
    assert (found["started_at"] - found["enqueued_at"]).total_seconds() >= 1.99
    assert found["_return_value"] == 3


def test_what_a_backend_cannot_do_is_refused(world: World) -> None:
    for wrong in (
        "using(queue_name='nowhere')",
        "using(priority=101)",
        "using(run_after=__import__('datetime').datetime.now())",
        "using(backend='nobody')",
    ):
        with pytest.raises(PeerError, match="InvalidTask"):
            world.do(f"from shop import tasks\ntasks.add.{wrong}")
    with pytest.raises(PeerError, match="InvalidTask"):
        world.do(
            f"""
            from {world.interface} import task
            def outer():
                def inner():
                    pass
                return inner
            task(outer())
            """
        )
    assert ended(world, "tasks.add.using(backend='any', queue_name='later').enqueue(1, 2)")["_return_value"] == 3


def test_a_result_belongs_to_its_task(world: World) -> None:
    task_id = enqueue(world, "tasks.add.enqueue(1, 2)")
    with pytest.raises(PeerError, match="TaskResultMismatch"):
        world.do("from shop import tasks\ntasks.fail.get_result(i)", i=task_id)
    with pytest.raises(PeerError, match="TaskResultDoesNotExist"):
        world.do("from shop import tasks\ntasks.add.get_result('123')")
    result(world, task_id, wait=True)


def test_a_task_that_is_another_backends_may_be_sent_to_opsq(world: World) -> None:
    found = ended(world, "tasks.elsewhere.using(backend='default').enqueue()")
    assert found["status"] == "SUCCESSFUL"
    assert found["_return_value"] != world.do("import os\nanswer = os.getpid()")


def test_a_task_may_have_another_name_than_its_function(world: World) -> None:
    assert ended(world, "tasks.doubled_by_a_worker.enqueue(tasks.double(2))")["_return_value"] == 8


def test_a_call_whose_note_has_gone_is_known_again_when_it_runs(world: World) -> None:
    task_id = enqueue(world, "tasks.in_order.using(priority=7).enqueue()")
    assert world.redis.delete(f"opsq:django-task:{task_id}") == 1
    with pytest.raises(PeerError, match="TaskResultDoesNotExist"):
        result(world, task_id)
    worker = world.start("worker", "-l", "info", "-c", "1", "-Q", "order", "-n", "again@%h")
    world.wait_for(lambda: ["order", 7] in world.marks(), "it runs")
    found = result(world, task_id, wait=True)
    assert (found["status"], found["task"], found["attempts"]) == ("SUCCESSFUL", "shop.tasks.in_order", 1)
    assert worker.stop() == 0, worker.report()


def test_a_call_that_cannot_be_sent_leaves_nothing(world: World) -> None:
    notes = {*world.redis.scan_iter("opsq:django-task:*")}
    world.redis.set("later", "no list")
    try:
        with pytest.raises(PeerError, match="OperationalError"):
            enqueue(world, "tasks.add.using(backend='any', queue_name='later', priority=100).enqueue(1, 2)")
    finally:
        world.redis.delete("later")
    assert {*world.redis.scan_iter("opsq:django-task:*")} == notes


def test_tasks_are_shown_under_their_own_names(world: World) -> None:
    task_id = enqueue(world, "tasks.add.enqueue(1, 2)")
    result(world, task_id, wait=True)
    assert "shop.tasks.add" in world.opsq("tasks", "--json")
    assert world.opsq("run", "task", "shop.tasks.add", "[3, 4]", "--wait").startswith("7\n"), "its own queue is known"


def test_what_is_wrong_in_the_settings_is_named(world: World) -> None:
    assert "did you mean acks_late?" in world.manage("check", code=1, TASK_OPTIONS="ack_late")
    said = world.opsq("worker", code=2, TASK_OPTIONS="ack_late")
    assert "OPTIONS has no 'ack_late'" in said
    assert "Traceback" not in said
    assert "opsq.W011" in world.manage("check", CELERY_RESULT_BACKEND="disabled")
