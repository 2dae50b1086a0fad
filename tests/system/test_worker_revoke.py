"""Revoked tasks do not run: waiting, for later, running; by id and by stamp; remembered in Redis."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import psutil
import pytest
from support import lab as labs
from support.lab import Lab, message, new_id
from support.processes import Running

from opsq.exceptions import TaskRevokedError

TASKS = """
from opsq import signals


@signals.task_revoked.connect
def told(sender=None, request=None, terminated=None, signum=None, expired=None, **_):
    mark("revoked", f"{request.id} {terminated} {signum} {expired}")


@app.task(acks_late=True)
def late_nap(text, seconds):
    mark("begin", text)
    time.sleep(seconds)
    mark("end", text)


@app.task
def soft_nap(text):
    from opsq.exceptions import SoftTimeLimitExceeded

    mark("begin", text)
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        return "cleaned up"
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        # Renewals are so rare that only a notice tells of a revocation in time.
        lab.worker("-c", "2", "--lease", "90", name="worker")
        yield lab


@pytest.fixture
def paused(lab: Lab) -> Iterator[Lab]:
    """Nothing is taken until the queue is resumed."""
    lab.redis.set("opsq:paused:{celery}", "1")
    yield lab
    lab.redis.delete("opsq:paused:{celery}")


def resume(lab: Lab) -> None:
    lab.redis.delete("opsq:paused:{celery}")


def revoked(lab: Lab, task_id: str, why: str = "revoked") -> None:
    """It ends as revoked, and says why."""
    record = lab.result(task_id, "REVOKED")
    assert record["result"]["exc_type"] == "TaskRevokedError"
    assert record["result"]["exc_message"] in ([why], (why,))


def running(lab: Lab) -> Running:
    return lab.spawn.running[0]


def has_ended(lab: Lab, task_id: str) -> bool:
    return lab.state(task_id) in ("SUCCESS", "REVOKED")


def test_a_waiting_task_that_is_revoked_does_not_run(paused: Lab) -> None:
    task_id, other = paused.send("nap", "gone"), paused.send("nap", "stays")
    paused.app.control.revoke(task_id)
    resume(paused)
    revoked(paused, task_id)
    paused.wait_mark("end", "stays")
    paused.result(other)
    assert not paused.written("begin", "gone")
    assert any("Discarding revoked task: proj.nap" in line for line in paused.lines(running(paused), task_id))
    paused.wait_mark("revoked", f"{task_id} False None False")
    with pytest.raises(TaskRevokedError, match="revoked"):
        paused.app.AsyncResult(task_id).get(timeout=5)


def test_many_are_revoked_in_one_call_and_their_neighbours_run(paused: Lab) -> None:
    ids = [paused.send("nap", f"many-{number}") for number in range(40)]
    paused.app.control.revoke(ids[::2])
    resume(paused)
    for number, task_id in enumerate(ids):
        paused.result(task_id, "SUCCESS" if number % 2 else "REVOKED")
    assert {mark.text for mark in paused.written("begin")} >= {f"many-{number}" for number in range(1, 40, 2)}
    assert not [mark for mark in paused.written("begin") if mark.text in {f"many-{n}" for n in range(0, 40, 2)}]


def test_it_is_counted_as_revoked(paused: Lab) -> None:
    def count() -> int:
        return int(paused.redis.hget("opsq:totals:{celery}", "n:revoked:proj.nap") or 0)

    before = count()
    task_id = paused.send("nap", "counted")
    paused.app.AsyncResult(task_id).revoke()
    resume(paused)
    revoked(paused, task_id)
    assert count() == before + 1


def test_who_waits_for_a_task_that_is_for_later_is_told_at_once(lab: Lab) -> None:
    task_id, other = lab.send("nap", "later", countdown=3600), lab.send("nap", "tomorrow", countdown=7200)
    lab.wait_for(lambda: lab.redis.zcard("opsq:delayed:{celery}") == 2, "both are for later")
    lab.app.control.revoke(task_id)
    revoked(lab, task_id)
    assert lab.redis.zcard("opsq:delayed:{celery}") == 1
    lab.app.control.revoke(other)
    revoked(lab, other)
    assert not lab.written("begin", "later")


def test_a_revocation_outlives_what_waits_for_its_time(lab: Lab) -> None:
    far = lab.send("nap", "far", countdown=10 * 86_400)
    lab.wait_for(lambda: lab.redis.zcard("opsq:delayed:{celery}") == 1, "it is for later")
    lab.app.control.revoke("somebody")
    assert lab.redis.ttl("opsq:revoked") > 10 * 86_400
    lab.app.control.revoke(far)
    revoked(lab, far)


@pytest.mark.parametrize("value", ["t1", ["t0", "t1"]])
def test_tasks_are_revoked_by_a_stamp(paused: Lab, value: Any) -> None:
    stamped, other, plain = new_id(), new_id(), new_id()
    stamps = {"stamped_headers": ["tenant"], "stamps": {"tenant": value}}
    others = {"stamped_headers": ["tenant"], "stamps": {"tenant": "t2"}}
    paused.redis.lpush("celery", message("nap", stamped, ("stamped",), **stamps))
    paused.redis.lpush("celery", message("nap", other, ("other",), **others), message("nap", plain, ("plain",)))
    paused.app.control.revoke_by_stamped_headers({"tenant": ["t1"]})
    resume(paused)
    revoked(paused, stamped)
    paused.result(other)
    paused.result(plain)
    assert any("(revoked by header: {'tenant': 't1'})" in line for line in paused.lines(running(paused), stamped))


@pytest.mark.parametrize("task", ["nap", "late_nap"])
def test_a_running_task_is_terminated_and_not_run_again(lab: Lab, task: str) -> None:
    name = f"victim of {task}"
    task_id = lab.send(task, name, 60)
    victim = lab.wait_mark("begin", name)
    replies = lab.app.control.terminate(task_id, reply=True, limit=1, timeout=10)
    assert [reply for each in replies for reply in each.values()] == [{"ok": f"terminate: {task_id}"}]
    revoked(lab, task_id, "terminated")
    lab.wait_for(lambda: not psutil.pid_exists(victim.pid), "its process is gone")
    lab.wait_mark("revoked", f"{task_id} True 15 False")
    assert len(lab.written("begin", name)) == 1
    assert not lab.dead()
    assert lab.run("add", 1, 2) == 3
    assert len(lab.written("begin", name)) == 1


def test_terminating_hits_only_the_task_that_is_meant(lab: Lab) -> None:
    mine = lab.send("nap", "mine", 60)
    victim = lab.wait_mark("begin", "mine")
    neighbour = lab.send("nap", "neighbour", 2)
    lab.wait_mark("begin", "neighbour")
    behind = [lab.send("nap", f"behind-{number}") for number in range(5)]
    lab.app.AsyncResult(mine).revoke(terminate=True, signal="KILL")
    revoked(lab, mine, "terminated")
    assert lab.value(neighbour) != victim.pid
    for task_id in behind:
        lab.result(task_id)
    for number in range(5):
        assert len(lab.written("begin", f"behind-{number}")) == 1


def test_what_does_not_run_any_more_is_not_hit(lab: Lab) -> None:
    """The parent looks again before it kills: the child runs something else by then."""
    ids = [lab.send("nap", f"short-{number}", 0.02) for number in range(30)]
    for task_id in ids:
        lab.app.control.terminate(task_id)
    for number, task_id in enumerate(ids):
        lab.wait_for(partial(has_ended, lab, task_id), "it ends")
        ended = lab.state(task_id)
        began = len(lab.written("begin", f"short-{number}"))
        finished = len(lab.written("end", f"short-{number}"))
        assert began <= 1
        assert finished or ended == "REVOKED"
        assert began or ended == "REVOKED"
    assert not lab.dead()
    assert lab.run("add", 2, 2) == 4


def test_a_task_may_clean_up_when_it_is_interrupted_softly(lab: Lab) -> None:
    task_id = lab.send("soft_nap", "soft")
    lab.wait_mark("begin", "soft")
    lab.app.control.terminate(task_id, signal="SIGUSR1")
    assert lab.value(task_id) == "cleaned up"


def test_an_unknown_task_cannot_be_terminated_and_an_unknown_signal_is_an_error(lab: Lab) -> None:
    def ask(**arguments: Any) -> Any:
        (reply,) = lab.app.control.revoke("nobody", terminate=True, reply=True, limit=1, timeout=10, **arguments)
        return next(iter(reply.values()))

    assert ask() == {"ok": "terminate: tasks unknown"}
    assert ask(signal="SIGNOPE") == {"error": "ValueError(\"'SIGNOPE' is no signal\")"}


def test_workers_say_what_is_revoked(lab: Lab) -> None:
    lab.app.control.revoke(["a-1", "a-2"])
    (told,) = lab.app.control.inspect(limit=1, timeout=10).revoked().values()
    assert {"a-1", "a-2"} <= set(told)


def test_a_worker_that_was_down_knows_what_was_revoked(lab: Lab) -> None:
    task_id = lab.send("nap", "before", queue="elsewhere")
    lab.app.control.revoke(task_id)
    other = lab.worker("-c", "1", "-Q", "elsewhere", "-n", "other@%h", name="other")
    revoked(lab, task_id)
    assert other.stop() == 0
    assert not lab.written("begin", "before")


def test_a_worker_that_was_down_knows_what_celerys_clients_have_revoked(lab: Lab) -> None:
    """Celery's clients only call it out; the worker that hears it writes it down for the others."""
    task_id = lab.send("nap", "called", queue="elsewhere")
    lab.app.control.broadcast("revoke", arguments={"task_id": task_id, "terminate": False, "signal": None})
    lab.wait_for(lambda: lab.redis.zscore("opsq:revoked", task_id), "it is written down")
    other = lab.worker("-c", "1", "-Q", "elsewhere", "-n", "other@%h", name="other")
    revoked(lab, task_id)
    assert other.stop() == 0


def test_revocations_are_bounded_by_number(lab: Lab) -> None:
    from opsq.broker.revoked import REVOKE

    before = int(lab.redis.zcard("opsq:revoked"))
    lab.redis.eval(REVOKE.text, 1, "opsq:revoked", 1000, before + 2, 0, "x1", "x2", "x3")
    assert int(lab.redis.zcard("opsq:revoked")) == before + 2
    assert lab.redis.ttl("opsq:revoked") > 0
    lab.redis.zrem("opsq:revoked", "x1", "x2", "x3")


def test_when_nothing_is_revoked_any_more_nothing_is_asked(lab: Lab) -> None:
    def questions() -> int:
        """How many are asked while a task is run."""
        lab.redis.config_resetstat()
        lab.run("add", 1, 1)
        stats: Any = lab.redis.info("commandstats")
        return int(stats.get("cmdstat_zmscore", {"calls": 0})["calls"])

    lab.app.control.revoke("somebody", reply=True, limit=1, timeout=10)
    assert questions() == 1
    lab.redis.delete("opsq:revoked")
    assert questions() == 0
