"""Chords whose workers die, whose counters are lost, whose parts never come: the body runs once, or fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import key_audit, redis_server
from support import lab as labs
from support.lab import Lab

from opsq import App, chain, chord, group, signature
from opsq.exceptions import ChordError

#: Workers that look often, and that are killed at the worst moments: the first try of each body is struck by `PLAN`.
TASKS = """
import sys
from multiprocessing import process

import opsq.worker.chords as chords
import opsq.worker.ledger as ledger
import opsq.worker.settle as settle
import opsq.worker.sizing as sizing

chords.LOOK_S = 0.2
sizing.SHORT_LIFE_S = 0.02
app.backend.chords.claim_s = 2
PLAN = os.environ.get("PLAN", "").split()
TURNS = int(os.environ.get("TURNS", "0"))
STRIKES = int(os.environ.get("STRIKES", "0"))
dispatch = chords.Conductor.dispatch


def nth_try(name):
    for number in range(1000):
        try:
            os.close(os.open(f"{os.environ['MARKS']}-{name}-{number}", os.O_CREAT | os.O_EXCL))
            return number
        except FileExistsError:
            continue


def die(*_args):
    mark("killed")
    os.kill(os.getpid(), 9)


def struck(self, name, why="complete"):
    stroke = PLAN[hash(name) % len(PLAN)] if PLAN and nth_try(name) == 0 else ""
    if stroke == "before":
        die()
    elif stroke == "between":
        self._chords.done = die
    dispatch(self, name, why)


chords.Conductor.dispatch = struck
dispatch_file = chords.dispatch_file


def noted(*arguments):
    mark("sender", "ready" if "opsq.datastore.redis_py" in sys.modules else "to import first")
    dispatch_file(*arguments)


chords.dispatch_file = noted
store = settle.Settler._store


def strike_after_the_count(self, settlements):
    store(self, settlements)
    in_child = process.current_process().name.startswith("ForkPoolWorker")
    if in_child and any("C" in each.writes for each in settlements) and nth_try("store") < STRIKES:
        die()


settle.Settler._store = strike_after_the_count
send = ledger.Ledger.send


def strike_before_the_turn(self, want, armed=False):
    in_child = process.current_process().name.startswith("ForkPoolWorker")
    if in_child and any("L" in each.writes for each in self._finished) and nth_try("turn") < TURNS:
        die()
    send(self, want, armed)


ledger.Ledger.send = strike_before_the_turn


@app.task(acks_late=True)
def part(value):
    return value


@app.task(acks_late=True)
def body(values, name):
    mark("body", f"{name} {sorted(values)}")


@app.task
def fail():
    raise ValueError
"""


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        yield lab


def sig(lab: Lab, task: str, *args: Any) -> Any:
    return signature(f"proj.{task}", args=args, app=lab.app)


def settled(lab: Lab) -> bool:
    return not lab.redis.zcard("opsq:chords")


@pytest.mark.timeout(240)
def test_a_hundred_senders_of_bodies_are_killed_between_count_and_dispatch(lab: Lab) -> None:
    lab.worker("-c", "8", name="worker", PLAN="before between")
    names = [str(name) for name in range(110)]
    for name in names:
        chord([sig(lab, "part", 1), sig(lab, "part", 2)], sig(lab, "body", name)).delay()
    lab.wait_for(lambda: len({mark.text for mark in lab.written("body")}) == len(names), "all bodies run", 150)
    lab.wait_for(lambda: settled(lab), "no chord is left", 60)
    assert len(lab.written("killed")) >= 100
    assert {mark.text for mark in lab.written("sender")} == {"ready"}, "none makes the machine busy before it sends"
    assert sorted(mark.text for mark in lab.written("body")) == sorted(f"{name} [1, 2]" for name in names)


def test_the_next_step_is_sent_once_whoever_dies_before_the_turn(lab: Lab) -> None:
    lab.worker("-c", "2", name="worker", TURNS="5")
    names = [str(name) for name in range(20)]
    for name in names:
        chain(sig(lab, "part", [1]), sig(lab, "body", name)).delay()
    lab.wait_for(lambda: len({mark.text for mark in lab.written("body")}) == len(names), "all second steps run", 30)
    lab.wait_for(lab.is_quiet, "nothing is left")
    assert len(lab.written("killed")) == 5
    assert sorted(mark.text for mark in lab.written("body")) == sorted(f"{name} [1]" for name in names)


def test_results_elsewhere_are_counted_once_whoever_dies_after_the_count(lab: Lab) -> None:
    """Parts are counted on the results' server before their messages are settled: after a kill they are told again."""
    with redis_server.running() as results, results.client() as redis:
        app = App("client", broker=lab.server.url(), backend=results.url(), set_as_current=False)
        lab.worker("-c", "2", name="worker", OPSQ_RESULT_BACKEND=results.url(), STRIKES="5", PLAN="before between")
        names = [str(name) for name in range(10)]
        for name in names:
            header = [signature("proj.part", (number,), app=app) for number in range(3)]
            header[0].link(signature("proj.part", app=app))
            chord(header, signature("proj.body", (name,), app=app), app=app).delay()
        lab.wait_for(lambda: len({mark.text for mark in lab.written("body")}) == len(names), "all bodies run", 60)
        lab.wait_for(lambda: not redis.zcard("opsq:chords"), "no chord is left", 30)
        assert sorted(mark.text for mark in lab.written("body")) == sorted(f"{name} [0, 1, 2]" for name in names)
        assert len(lab.written("killed")) >= 12
        lab.end_workers()
        assert not (problems := key_audit.of_server(results)), problems


def test_a_lost_counter_fails_the_chord(lab: Lab) -> None:
    lab.app.backend.chords.claim_s = 2
    header = group([sig(lab, "part", 1), sig(lab, "part", 2).set(countdown=1.5)])
    result = (header | sig(lab, "body", "lost")).delay()
    lab.redis.delete(f"celery-taskset-meta-{result.parent.id}.s")
    lab.worker("-c", "1", name="worker")
    lab.wait_for(lambda: lab.redis.zcard(f"celery-taskset-meta-{result.parent.id}.j") == 2, "both parts are counted")
    lab.redis.hset(f"opsq:chord:{result.parent.id}", "at", str(int((time.time() - 301) * 1000)))
    error = lab.result(result.id, "FAILURE", timeout=20)["result"]
    assert error["exc_type"] == "ChordError"
    assert "the counter is lost" in error["exc_message"][0]
    assert not lab.written("body")


def test_a_failure_that_a_celery_worker_has_told_is_not_told_again(lab: Lab) -> None:
    """It leaves the parts, takes the counter away, and stores the failure of the body."""
    body = sig(lab, "body", "told")
    body.link_error(sig(lab, "part"))
    result = chord([sig(lab, "part", 1), sig(lab, "part", 2).set(queue="nobody")], body).delay()
    lab.worker("-c", "1", name="worker")
    key = f"celery-taskset-meta-{result.parent.id}"
    lab.wait_for(lambda: lab.redis.zcard(f"{key}.j") == 1, "one part is counted")
    lab.app.backend.store(result.id, "FAILURE", ChordError("told"))
    lab.redis.delete(f"{key}.s")
    lab.redis.hset(f"opsq:chord:{result.parent.id}", "at", str(int((time.time() - 301) * 1000)))
    lab.redis.zadd("opsq:chords", {result.parent.id: 0})
    lab.wait_for(lambda: settled(lab), "the chord is forgotten")
    assert lab.result(result.id, "FAILURE")["result"]["exc_message"] == ["told"]
    lab.redis.delete("nobody")


def test_parts_that_never_come_fail_the_chord(lab: Lab) -> None:
    result = chord([sig(lab, "part", 1), sig(lab, "part", 2).set(queue="nobody")], sig(lab, "body", "old")).delay()
    lab.worker("-c", "1", name="worker")
    lab.wait_for(lambda: lab.redis.zcard(f"celery-taskset-meta-{result.parent.id}.j") == 1, "one part is counted")
    lab.redis.hset(f"opsq:chord:{result.parent.id}", "at", str(int((time.time() - 86_400) * 1000)))
    lab.redis.zadd("opsq:chords", {result.parent.id: 0})
    error = lab.result(result.id, "FAILURE", timeout=20)["result"]
    assert "only 1 of 2 parts have ended" in error["exc_message"][0]
    lab.redis.delete("nobody")
