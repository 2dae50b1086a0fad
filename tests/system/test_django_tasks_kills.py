"""kill -9 of workers between the note that a call of `django.tasks` has begun and its result: what becomes of it."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from support import django_world
from support.django_world import SETTINGS, World
from support.proxy import TURN_SHA, ChildKiller

PROJECT = f"""{SETTINGS}
INSTALLED_APPS = ["opsq.contrib.django", "shop", "django_tasks"]
CELERY_BROKER_URL = CELERY_RESULT_BACKEND = os.environ["BROKER"]
CELERY_TASK_MAX_DELIVERIES = 100
BACKEND = "opsq.contrib.django.tasks.OpsqBackend"
TASKS = {{"default": {{"BACKEND": BACKEND}}, "safe": {{"BACKEND": BACKEND, "OPTIONS": {{"acks_late": True}}}}}}
"""
TASKS = """
import json
import os

from INTERFACE import task

MARKS = os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def effect(context):
    os.write(MARKS, (json.dumps(context.task_result.id) + "\\n").encode())


@task(takes_context=True)
def once(context):
    effect(context)


@task(takes_context=True, backend="safe")
def again(context):
    effect(context)
"""
KILLS, EACH = 20, 16
#: A child notes that it begins a call; in a turn it settles calls with their results.
BEGINS = re.compile(rb"HSET\r\n\$\d+\r\n\S*opsq:django-task:([0-9a-f-]{36})")
SETTLES = re.compile(rb"celery-task-meta-([0-9a-f-]{36})")
INSTANTS = [(what, comes) for what in (BEGINS, SETTLES) for comes in (False, True)]


class Killer(ChildKiller):
    """Kills the child that runs a call at one instant: before or after its note, or its turn, has come to Redis."""

    def __init__(self, server_port: int, seed: int) -> None:
        super().__init__(server_port, KILLS)
        self._random = random.Random(seed)
        self._instants: dict[bytes, Any] = {}
        #: The calls whose results were on the way when their child was killed.
        self.settling: set[str] = set()

    def _due(self, data: bytes) -> bool:
        """Whether the instant of a call is now: each has one, drawn when it is first seen."""
        with self._lock:
            for what in (BEGINS, SETTLES) if TURN_SHA in data else (BEGINS,):
                for call in what.findall(data):
                    instant = self._instants.setdefault(call, self._random.choice(INSTANTS))
                    if instant is not None and instant[0] is what and self.strikes < self.limit:
                        self.strikes, self._instants[call], self.comes = self.strikes + 1, None, instant[1]
                        self.settling |= {found.decode() for found in what.findall(data) if what is SETTLES}
                        return True
        return False


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with django_world.opened(tmp_path_factory, "5.2", {"proj/settings.py": PROJECT, "shop/tasks.py": TASKS}) as world:
        yield world


def test_a_call_whose_worker_is_killed_ends_as_its_options_say(world: World) -> None:
    sent = (
        f"from shop import tasks\nanswer = [[t.enqueue().id for t in (tasks.again, tasks.once)] for _ in range({EACH})]"
    )
    again, once = zip(*world.do(sent), strict=True)
    port = int(world.url.rpartition(":")[2].partition("/")[0])
    killer = Killer(port, random.randrange(1_000_000))
    try:
        through = world.url.replace(f":{port}/", f":{killer.port}/")
        words = ("worker", "-l", "info", "-c", "4", "--prefetch-multiplier", "2")
        killer.worker = world.start(*words, BROKER=through, ready="celery@")
        ended = """
            from django_tasks import default_task_backend
            found = [default_task_backend.get_result(each) for each in ids]
            errors = lambda each: [error.exception_class_path for error in each.errors]
            answer = [(str(each.status), each.attempts, errors(each)) for each in found]
        """
        told: list[Any] = []

        def over() -> bool:
            told[:] = world.do(ended, ids=[*again, *once])
            return all(status in ("SUCCESSFUL", "FAILED") for status, _attempts, _errors in told)

        world.wait_for(over, "each call has ended, and none is RUNNING for ever", 60)
        assert killer.worker.stop() == 0, killer.worker.report()
    finally:
        killer.close()
    assert killer.strikes >= KILLS // 2
    effects, results = Counter(world.marks()), dict(zip([*again, *once], told, strict=True))
    for call in again:
        status, attempts, errors = results[call]
        assert (status, errors) == ("SUCCESSFUL", []), "it runs until it has ended"
        assert 1 <= effects[call] <= attempts, "each attempt is noted before it has an effect"
    for call in once:
        status, attempts, errors = results[call]
        assert effects[call] <= 1, "it has its effect once at most"
        assert attempts <= 1
        if status == "FAILED":
            assert errors == ["opsq.exceptions.WorkerLostError"]
            assert call not in killer.settling, "what had ended is settled as it had ended"
        else:
            assert effects[call] == 1
