"""SIGHUP: today's code and settings in fresh children, one by one; nothing is interrupted, broken code not taken."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from support.processes import Running
from support.worker_project import Project, all_done, children_of, left_in_flight

from opsq import App

CODE = """
import os
import time

from opsq import Celery

app = Celery("proj")
MARKS = os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
{settings}

def mark(what, number):
    os.write(MARKS, f"{{what}} {{number}} {{os.getpid()}}\\n".encode())


def effect(number, seconds):
    mark("begin", number)
    time.sleep(seconds)
    mark("effect", number)
    mark("end", number)


@app.task
def version():
    return {version}


@app.task(acks_late=True)
def late(number, seconds=0.0):
    effect(number, seconds)


@app.task
def early(number, seconds=0.0):
    effect(number, seconds)
    return {version}


@app.task
def held(number):
    mark("begin", number)
    while not os.path.exists(os.environ["MARKS"] + ".release"):
        time.sleep(0.01)
    mark("end", number)
    return {version}


@app.task
def napping(seconds):
    time.sleep(seconds)

{more}
"""


@pytest.fixture
def project(project: Project) -> Project:
    write(project.folder, 1)
    return project


@pytest.fixture
def app(redis_url: str) -> App:
    return App("client", broker=redis_url, backend=redis_url, set_as_current=False)


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


def write(folder: Path, version: int, settings: str = "", more: str = "") -> None:
    """The project's module; written beside and moved, so that nobody reads half of it.

    Bytecode that was kept counts as long as size and second of its source are the same: each version has its second.
    """
    fresh = folder / "proj.new"
    fresh.write_text(CODE.format(version=version, settings=settings, more=more))
    written = time.time() + version
    os.utime(fresh, (written, written))
    fresh.replace(folder / "proj.py")


def run(app: App, task: str, *args: Any, queue: str = "celery", **options: Any) -> Any:
    return app.send_task(f"proj.{task}", args, queue=queue, **options).get(timeout=20)


def reload(worker: Running, wait_for: Callable[..., Any]) -> str:
    """Send SIGHUP; the line that says what has come of it."""
    before = worker.output().count("reload")
    worker.send(signal.SIGHUP)

    def said() -> str | None:
        lines = [line for line in worker.output().splitlines() if "reloaded" in line or "cannot reload" in line]
        told = worker.output().count("reload") - before
        return lines[-1] if told >= 2 and lines else None

    return str(wait_for(said, timeout=20, what="a reload comes to something"))


def test_new_code_runs_and_what_ran_is_not_disturbed(project: Project, app: App, wait_for: Callable[..., Any]) -> None:
    worker = project.worker("-c", "2")
    assert run(app, "version") == 1
    long = app.send_task("proj.held", (1,))
    wait_for(lambda: ("begin", "1") in [mark[:2] for mark in project.marks()], what="it begins")
    write(project.folder, 2)
    assert "reloaded" in reload(worker, wait_for)
    wait_for(lambda: run(app, "version") == 2, what="new code runs while the old task goes on")
    assert not long.ready()
    (project.folder / "marks.release").touch()
    assert long.get(timeout=20) == 1, "the old code ends in its own process"
    wait_for(lambda: len(children_of(worker)) == 2, what="as many children as before")
    wait_for(lambda: len(psutil.Process(worker.pid).children()) == 1, what="the old template has gone")
    assert {run(app, "version") for _ in range(10)} == {2}
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("def broken(:", "(proj.py, line "),
        ("import a_module_that_is_not_there", "No module named 'a_module_that_is_not_there'"),
        ("app.conf.worker_concurrency = 'many'", "cannot use worker_concurrency = 'many': it is no number"),
        ("os._exit(3)", "killed or ended without a word"),
        ("os.kill(os.getpid(), 9)", "killed or ended without a word"),
    ],
)
def test_code_that_cannot_be_imported_changes_nothing_and_says_why(
    project: Project, app: App, wait_for: Callable[..., Any], broken: str, why: str
) -> None:
    worker = project.worker("-c", "1")
    children = children_of(worker)
    write(project.folder, 2, more=broken)
    line = reload(worker, wait_for)
    assert "cannot reload: " in line
    assert why in line
    assert line.endswith("; the old code goes on")
    assert "Traceback" not in worker.output()
    assert run(app, "version") == 1
    assert children_of(worker) == children, "nobody was replaced"
    write(project.folder, 3)
    assert "reloaded" in reload(worker, wait_for)
    wait_for(lambda: run(app, "version") == 3, what="mended code runs")
    assert worker.stop() == 0


def test_settings_are_read_again_and_what_needs_a_restart_is_named(
    project: Project, app: App, client: redis.Redis, wait_for: Callable[..., Any]
) -> None:
    write(project.folder, 1, "app.conf.update(worker_concurrency=1, task_default_queue='a', task_time_limit=30)")
    worker = project.worker()
    assert run(app, "version", queue="a") == 1
    app.send_task("proj.version", queue="b")
    url = "redis://:secret@127.0.0.1:1/7"
    write(
        project.folder,
        2,
        "app.conf.update(worker_concurrency=3, task_queues=['b', 'c'], task_time_limit=0.3, "
        f"worker_max_tasks_per_child=2, worker_pool='solo', result_backend='{url}')",
    )
    line = reload(worker, wait_for)
    assert "concurrency 1 -> 3" in line
    assert "queues a -> b,c" in line
    assert "max tasks per child none -> 2" in line
    wait_for(lambda: "needs a restart" in worker.output(), what="what needs one is said after it")
    kept = next(each for each in worker.output().splitlines() if "needs a restart" in each)
    assert "pool stays prefork (now solo)" in kept
    assert "(now redis://" in kept
    assert "secret" not in worker.output()
    wait_for(lambda: len(children_of(worker)) == 3, what="three children")
    assert run(app, "version", queue="c") == 2, "what waited in the new queues runs, results go where they went"
    wait_for(lambda: client.llen("b") == 0, what="also what waited before")
    wait_for(lambda: not client.zcard("opsq:consumers:{a}"), what="nobody consumes the old queue any more")
    limited = app.send_task("proj.napping", (30,), queue="b")
    with pytest.raises(Exception, match=r"0\.3"):
        limited.get(timeout=10)
    pids = {child.pid for child in children_of(worker)}
    for _ in range(6):
        run(app, "version", queue="b")
    wait_for(lambda: not pids <= {child.pid for child in children_of(worker)}, what="children end after two tasks")
    assert worker.stop() == 0


def test_queues_that_a_reload_brings_are_announced_as_producers_announce_them(
    project: Project, client: redis.Redis, wait_for: Callable[..., Any]
) -> None:
    """Celery's producers split the bindings at the separator of the settings."""
    options = "app.conf.broker_transport_options = {'sep': ':', 'priority_steps': [0, 5]}\n"
    write(project.folder, 1, f"{options}app.conf.task_queues = ['a']")
    worker = project.worker("-c", "1")
    write(project.folder, 2, f"{options}app.conf.task_queues = ['a', 'b']")
    reload(worker, wait_for)
    wait_for(lambda: client.zcard("opsq:consumers:{b}"), what="the new queue is consumed")
    assert client.smembers("_kombu.binding.a") == {b"a::a"}
    assert client.smembers("_kombu.binding.b") == client.smembers("_kombu.binding_permanent.b") == {b"b::b"}
    App("client", broker=project.url, set_as_current=False).control.add_consumer("c", exchange="x", reply=True)
    wait_for(lambda: client.zcard("opsq:consumers:{c}"), what="a queue added by command is consumed")
    assert client.smembers("_kombu.binding.c") == client.smembers("_kombu.binding_permanent.c") == {b"c::c"}
    assert client.smembers("_kombu.binding.x") == {b"c::c"}
    assert worker.stop() == 0


def test_a_busy_child_does_not_hold_up_the_replacement_of_the_others(
    project: Project, app: App, wait_for: Callable[..., Any]
) -> None:
    worker = project.worker("-c", "3")
    old = {child.pid for child in children_of(worker)}
    long = app.send_task("proj.held", (1,))
    wait_for(lambda: project.running_now(), what="it begins")
    reload(worker, wait_for)
    wait_for(lambda: len({child.pid for child in children_of(worker)} - old) == 2, what="two are new")
    assert not long.ready()
    (project.folder / "marks.release").touch()
    assert worker.stop() == 0


def test_never_more_children_than_wanted_while_they_are_replaced(
    project: Project, app: App, wait_for: Callable[..., Any]
) -> None:
    """`-c 1` is a promise: two tasks never run at once."""
    worker = project.worker("-c", "1")
    results = [app.send_task("proj.early", (number, 0.05)) for number in range(40)]
    reload(worker, wait_for)
    reload(worker, wait_for)
    for result in results:
        result.get(timeout=20)
    order = [what for what, _number, _pid in project.marks() if what in ("begin", "end")]
    assert order == ["begin", "end"] * 40
    assert worker.stop() == 0


def test_children_are_replaced_one_by_one(project: Project, app: App, wait_for: Callable[..., Any]) -> None:
    """While one begins the others go on: most of the children are always at work."""
    worker = project.worker("-c", "3")
    more = "from opsq.signals import worker_process_init\n\n@worker_process_init.connect\ndef slow(**_):\n"
    more += "    mark('init', 0)\n    time.sleep(0.3)\n    mark('ready', 0)\n"
    write(project.folder, 2, more=more)
    assert "reloaded" in reload(worker, wait_for)

    def begun() -> list[str]:
        return [what for what, _number, _pid in project.marks()]

    wait_for(lambda: len(begun()) >= 6, 20, "all are replaced")
    assert begun() == ["init", "ready"] * 3
    assert {run(app, "version") for _ in range(10)} == {2}
    assert worker.stop() == 0


def test_never_more_children_than_wanted_while_an_old_one_runs_on(
    project: Project, app: App, wait_for: Callable[..., Any]
) -> None:
    """What an old child runs takes the place of a new one for as long as it takes."""
    worker = project.worker("-c", "2")
    old = app.send_task("proj.held", (1,))
    wait_for(lambda: ("begin", "1") in [mark[:2] for mark in project.marks()], what="it begins")
    write(project.folder, 2)
    reload(worker, wait_for)
    wait_for(lambda: run(app, "version") == 2, what="new code runs beside it")
    new = app.send_task("proj.held", (2,))
    wait_for(lambda: ("begin", "2") in [mark[:2] for mark in project.marks()], what="both are busy")
    third = app.send_task("proj.early", (3,))
    until = time.monotonic() + 0.7
    while time.monotonic() < until:
        assert len([child for child in children_of(worker) if is_alive(child)]) == 2
    assert not third.ready()
    (project.folder / "marks.release").touch()
    assert [each.get(timeout=20) for each in (old, new, third)] == [1, 2, 2]
    assert worker.stop() == 0


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def test_a_task_that_only_new_code_knows_comes_back_when_its_process_is_killed(
    project: Project, app: App, wait_for: Callable[..., Any]
) -> None:
    """The parent settles it by what the new template has told of it."""
    worker = project.worker("-c", "1")
    more = "@app.task(acks_late=True)\ndef fresh(number):\n    effect(number, 0.0 if number in seen() else 30)\n"
    more += (
        "\ndef seen():\n    return [int(l.split()[1]) for l in open(os.environ['MARKS']) if l.startswith('begin')]\n"
    )
    write(project.folder, 2, more=more)
    reload(worker, wait_for)
    wait_for(lambda: len(psutil.Process(worker.pid).children()) == 1, what="nobody is left who does not know it")
    result = app.send_task("proj.fresh", (7,))
    [pid] = wait_for(lambda: project.running_now(), what="it begins")
    os.kill(pid, signal.SIGKILL)
    result.get(timeout=20)
    assert project.effects() == {"7": 1}
    assert worker.stop() == 0


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_or_doubled_whoever_is_killed_during_reloads(
    project: Project, app: App, client: redis.Redis, wait_for: Callable[..., Any], seed: int
) -> None:
    """kill -9 of a template, a newcomer or a child at random instants, while code is reloaded again and again."""
    chance = random.Random(seed)
    worker = project.worker("-c", "2")
    for number in range(300):
        app.send_task("proj.late", (number, 0.005))
    until = time.monotonic() + 4
    while time.monotonic() < until:
        worker.send(signal.SIGHUP)
        time.sleep(chance.uniform(0.1, 0.9))
        found = psutil.Process(worker.pid).children(recursive=True)
        if found:
            chance.choice(found).kill()
    wait_for(lambda: all_done(client), timeout=30, what="all are done")
    assert worker.alive()
    done = project.effects()
    assert set(done) == {str(number) for number in range(300)}
    again = re.findall(r"\[([0-9a-f-]{36})\] goes back to its queue", worker.output())
    assert sum(done.values()) - 300 <= len(again), "only what was killed while it ran has run again"
    assert worker.stop() == 0
    assert not left_in_flight(client)


def test_the_parent_killed_during_a_reload_leaves_no_process_and_no_message(
    project: Project, app: App, client: redis.Redis, wait_for: Callable[..., Any]
) -> None:
    worker = project.worker("-c", "2", name="first")
    for number in range(100):
        app.send_task("proj.late", (number, 0.01))
    worker.send(signal.SIGHUP)
    wait_for(lambda: len(psutil.Process(worker.pid).children()) == 2, what="a newcomer is there")
    below = psutil.Process(worker.pid).children(recursive=True)
    worker.stop(signal.SIGKILL)
    wait_for(lambda: not any(each.is_running() and each.status() != "zombie" for each in below), what="all end with it")
    second = project.worker("-c", "2", name="second")
    wait_for(lambda: all_done(client), timeout=20, what="all are done")
    assert set(project.effects()) == {str(number) for number in range(100)}
    assert second.stop() == 0
    assert not list((project.folder.parent / "state").rglob("*.slots")), "nothing is left of either"


def test_what_a_worker_held_of_queues_that_a_reload_brought_is_settled_by_its_successor(
    project: Project, app: App, client: redis.Redis, wait_for: Callable[..., Any]
) -> None:
    """The mapped file names all queues that any of its children consumed; nobody has to wait for a lease."""
    write(project.folder, 1, "app.conf.task_queues = ['a']")
    first = project.worker("-c", "2", "--lease", "60", name="first")
    write(project.folder, 2, "app.conf.task_queues = ['b', 'a']")
    reload(first, wait_for)
    wait_for(lambda: client.zcard("opsq:consumers:{b}") == 2, what="both children are new")
    app.send_task("proj.late", (1, 60), queue="b")
    app.send_task("proj.late", (2, 60), queue="a")
    wait_for(lambda: len(project.running_now()) == 2, what="they run")
    first.stop(signal.SIGKILL)
    second = project.worker("-c", "1", "-Q", "elsewhere", "--lease", "60", name="second")
    wait_for(lambda: client.llen("a") == client.llen("b") == 1, what="both are back at once")
    assert not left_in_flight(client)
    client.delete("a", "b")
    assert second.stop() == 0


def test_a_changed_source_file_is_read_again_in_development(
    project: Project, app: App, wait_for: Callable[..., Any]
) -> None:
    worker = project.worker("-c", "1", "--reload")
    assert run(app, "version") == 1
    write(project.folder, 2)
    wait_for(lambda: run(app, "version") == 2, timeout=15, what="new code runs by itself")
    assert "changed: proj.py" in worker.output()
    write(project.folder, 3, more="from helper import *")
    wait_for(lambda: "No module named 'helper'" in worker.output(), timeout=15, what="what is wrong is said")
    assert run(app, "version") == 2, "the old code goes on"
    (project.folder / "helper.py").write_text("")
    wait_for(lambda: run(app, "version") == 3, timeout=15, what="a file that was missing is seen")
    assert worker.stop() == 0


def test_without_the_flag_nothing_is_watched(project: Project, app: App, wait_for: Callable[..., Any]) -> None:
    worker = project.worker("-c", "1")
    write(project.folder, 2)
    wait_for(lambda: run(app, "version") == 1 and psutil.Process(worker.pid).create_time() < time.time() - 3)
    assert run(app, "version") == 1
    assert worker.stop() == 0
