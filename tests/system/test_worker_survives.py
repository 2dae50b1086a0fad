"""Kill what you like: every message has its effect or is in the dead letters, and everything comes back by itself.

A producer writes down what it sent; tasks write down what they did; a killer strikes while tasks run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from support.processes import Running
from support.worker_project import Project, all_done

#: Tasks that are sent at least, and kills.
COUNT, KILLS = 1500, 6

PRODUCER = """
import os, sys, time
import proj

task, count = getattr(proj, sys.argv[1]), int(sys.argv[2])
number = 0
with open("sent", "a", buffering=1) as sent:
    while number < count or not os.path.exists("enough"):
        task.delay(number, 0.002)
        sent.write(f"{number}\\n")
        number += 1
        time.sleep(0.0015)
"""


class Killer:
    """Kills one part of a worker with -9, and counts how often a task was running there at that instant."""

    def __init__(self, project: Project, start: Callable[[], Running]) -> None:
        self.project, self.start = project, start
        self.worker = start()
        self.kills, self.hits = 0, 0

    def children(self) -> list[psutil.Process]:
        """The template's children."""
        templates = psutil.Process(self.worker.pid).children()
        return [child for template in templates for child in template.children()]

    def strike(self, what: str) -> None:
        """Wait until a task runs, then kill; does nothing while the worker is still on its way back."""
        try:
            victims = {child.pid for child in self.children()}
            busy = self._until_one_runs(victims)
            if not busy:
                return
            self._kill(what, busy)
        except psutil.Error:
            return
        self.kills += 1
        self.hits += bool(busy & self.project.running_now())
        if what in ("parent", "group"):
            self.worker.wait()
            self.worker = self.start()

    def _until_one_runs(self, victims: set[int]) -> set[int]:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            if busy := self.project.running_now() & victims:
                return busy
        return set()

    def _kill(self, what: str, busy: set[int]) -> None:
        if what == "child":
            os.kill(random.choice(sorted(busy)), signal.SIGKILL)
        elif what == "template":
            psutil.Process(self.worker.pid).children()[0].kill()
        elif what == "parent":
            os.kill(self.worker.pid, signal.SIGKILL)
        else:
            os.killpg(self.worker.pid, signal.SIGKILL)


def dead_numbers(client: redis.Redis) -> set[str]:
    """What the tasks in the dead letters were called with."""
    letters = [json.loads(record) for record in client.hvals("opsq:dead:{celery}")]
    return {json.loads(letter["message"])["headers"]["argsrepr"].strip("(").split(",")[0] for letter in letters}


def storm(project: Project, client: redis.Redis, task: str, wait_for: Callable[..., Any]) -> tuple[Killer, set[str]]:
    """Send `COUNT` tasks while everything is killed in turn; returns when all is done."""
    starts = iter(range(1000))
    killer = Killer(
        project, lambda: project.worker("-c", "2", "-l", "warning", name=f"worker-{next(starts)}", ready=False)
    )
    (project.folder / "producer.py").write_text(PRODUCER)
    argv = [sys.executable, "producer.py", task, COUNT]
    producer = project.spawn(argv, name="producer", env=project.environment, cwd=project.folder)
    targets = ["child", "template", "child", "parent", "child", "group"]
    until = time.monotonic() + 40
    while producer.alive() and time.monotonic() < until:
        if project.marks():
            killer.strike(targets[killer.kills % len(targets)])
        if killer.kills >= KILLS:
            (project.folder / "enough").touch()
    assert producer.wait() == 0, producer.report()
    wait_for(lambda: all_done(client), 40, "everything is settled")
    sent = set((project.folder / "sent").read_text().split())
    assert len(sent) >= COUNT
    assert killer.kills >= KILLS
    assert killer.hits * 2 >= killer.kills, "at least half of the kills land while a task runs"
    killer.worker.stop()
    return killer, sent


def test_late_acknowledged_tasks_all_have_their_effect_whatever_is_killed(project, redis_client, wait_for) -> None:
    _killer, sent = storm(project, redis_client, "late", wait_for)
    assert set(project.effects()) == sent - dead_numbers(redis_client)
    assert dead_numbers(redis_client) == set()


def test_default_tasks_run_at_most_once_and_the_rest_is_in_the_dead_letters(project, redis_client, wait_for) -> None:
    _killer, sent = storm(project, redis_client, "early", wait_for)
    effects, dead = project.effects(), dead_numbers(redis_client)
    assert max(effects.values()) == 1, "no effect twice"
    assert set(effects) | dead == sent


def test_a_peer_takes_over_when_the_host_is_gone(project, wait_for) -> None:
    """Another state directory is another host as far as slots go: only the lease tells that the worker has gone."""
    first = project.worker("-c", "1", "-n", "one@h", "--lease", "1.5", OPSQ_STATE_DIR=str(project.folder / "one"))
    send(project, "late", 1, 60)
    wait_for(lambda: project.running_now(), what="the task runs")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    project.worker("-c", "1", "-n", "two@h", "--lease", "1.5", OPSQ_STATE_DIR=str(project.folder / "two"))
    wait_for(lambda: [mark[0] for mark in project.marks()].count("begin") == 2, 20, "the peer runs it")


def send(project: Project, task: str, *arguments: Any, **options: Any) -> None:
    """One call, from a process of its own."""
    run(project, f"proj.{task}.apply_async({list(arguments)!r}, **{options!r})")


def run(project: Project, code: str) -> None:
    """Some code of a client."""
    argv = [sys.executable, "-c", f"import proj\n{code}"]
    done = project.spawn(argv, env=project.environment, cwd=project.folder)
    assert done.wait() == 0, done.report()


def test_three_workers_of_one_name_in_one_folder(project, redis_client, wait_for) -> None:
    workers = [project.worker("-c", "1", "-n", "same@h", name=f"same-{i}") for i in range(3)]
    run(project, "for i in range(60): proj.late.delay(i, 0.01)")
    wait_for(lambda: len(project.effects()) == 60, 20, "all effects")
    wait_for(lambda: all_done(redis_client))
    assert max(project.effects().values()) == 1
    assert len({pid for _what, _number, pid in project.marks()}) == 3
    for worker in workers:
        assert worker.stop() == 0


def test_a_task_that_kills_its_process_again_and_again_ends_in_the_dead_letters(
    project, redis_client, wait_for
) -> None:
    project.worker("-c", "1")
    send(project, "kill_me", 7)
    wait_for(lambda: redis_client.hlen("opsq:dead:{celery}") == 1, 40, "it is buried")
    (letter,) = (json.loads(record) for record in redis_client.hvals("opsq:dead:{celery}"))
    assert letter["task"] == "proj.kill_me"
    assert "5 times" in letter["reason"]
    assert [what for what, _number, _pid in project.marks()].count("begin") == 5
    send(project, "late", 8)
    wait_for(lambda: project.effects()["8"] == 1, 20, "the worker goes on")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_warm_stop_finishes_what_runs_and_gives_back_the_rest(number, project, redis_client, wait_for) -> None:
    worker = project.worker("-c", "1")
    run(project, "proj.late.delay(1, 1.5)\nfor i in (2, 3, 4): proj.late.delay(i, 0.1)")
    wait_for(project.running_now)
    assert worker.stop(number) == 0
    assert set(project.effects()) == {"1"}
    assert redis_client.llen("celery") == 3
    project.worker("-c", "1")
    wait_for(lambda: len(project.effects()) == 4)
    assert [number for what, number, _pid in project.marks() if what == "effect"] == ["1", "2", "3", "4"]


def test_a_signal_to_the_whole_group_kills_no_task(project, redis_client, wait_for) -> None:
    worker = project.worker("-c", "2")
    send(project, "early", 1, 1.5)
    wait_for(project.running_now)
    os.killpg(worker.pid, signal.SIGINT)
    assert worker.wait() == 0
    assert project.effects() == {"1": 1}
    assert redis_client.hlen("opsq:dead:{celery}") == 0


def test_a_second_signal_stops_at_once_and_what_ran_is_accounted_for(project, redis_client, wait_for) -> None:
    worker = project.worker("-c", "2")
    send(project, "early", 1, 60)
    send(project, "late", 2, 60)
    wait_for(lambda: len(project.running_now()) == 2)
    worker.send(signal.SIGTERM)
    wait_for(lambda: "Warm shutdown" in worker.output())
    begun = time.monotonic()
    wait_for(lambda: time.monotonic() - begun > 0.55, what="a second signal counts as one")
    worker.send(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert dead_numbers(redis_client) == {"1"}
    assert redis_client.llen("celery") == 1


def test_hup_replaces_the_children_and_runs_new_code_while_a_task_ends_in_the_old(project, wait_for) -> None:
    worker = project.worker("-c", "2")
    send(project, "late", 1, 1.5)
    wait_for(project.running_now)
    source = project.folder / "proj.py"
    source.write_text(source.read_text().replace("return x + y", 'mark("new", x)\n    return x + y'))
    worker.send(signal.SIGHUP)
    wait_for(lambda: project.effects()["1"] == 1, what="the old task ends")
    send(project, "add", 5, 6)
    wait_for(lambda: any(mark[:2] == ("new", "5") for mark in project.marks()) or _again(project), 15, "new code runs")
    assert worker.alive()


def _again(project: Project) -> bool:
    """While old children are still being replaced they may take a call: send another."""
    send(project, "add", 5, 6)
    return False


def test_nothing_of_a_worker_is_left_after_its_end(project) -> None:
    worker = project.worker("-c", "2")
    assert worker.stop() == 0
    state = Path(project.spawn.environment()["OPSQ_STATE_DIR"])
    assert list((state / "run" / "slots").iterdir()) == []
