"""Leases: who lives keeps its messages however long a task takes, and an idle worker is silent."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
import redis
from support.worker_project import Project, all_done, children_of, left_in_flight

from opsq import App
from opsq.protocol import writing

LEASE_S = 1.5


def send(client: redis.Redis, task: str, *arguments: object, task_id: str = "id-1") -> None:
    raw = writing.build(task=f"proj.{task}", id=task_id, args=list(arguments), kwargs={}, queue="celery")
    client.lpush("celery", raw)


def begun(project: Project) -> int:
    return [what for what, _number, _pid in project.marks()].count("begin")


def test_a_task_longer_than_the_lease_runs_once(project, redis_client, wait_for) -> None:
    for name in ("one", "two"):
        project.worker("-c", "1", "--lease", str(LEASE_S), "-n", f"{name}@h", OPSQ_STATE_DIR=str(project.folder / name))
    send(redis_client, "late", 1, 2.5 * LEASE_S)
    wait_for(lambda: all_done(redis_client) and project.effects(), 20)
    assert begun(project) == 1
    assert project.effects() == {"1": 1}


def test_a_task_that_holds_the_interpreters_lock_longer_than_the_lease_runs_once(
    project, redis_client, wait_for
) -> None:
    source = project.folder / "proj.py"
    source.write_text(
        source.read_text()
        .replace("@app.task(time_limit=0.5)\ndef hold", "@app.task(acks_late=True)\ndef hold")
        .replace("usleep(30_000_000)", "usleep(4_000_000)")
        .replace('lock."""', 'lock."""\n    mark("begin", number)')
    )
    for name in ("one", "two"):
        project.worker("-c", "1", "--lease", str(LEASE_S), "-n", f"{name}@h", OPSQ_STATE_DIR=str(project.folder / name))
    send(redis_client, "hold_the_interpreter", 1)
    wait_for(lambda: begun(project) and all_done(redis_client), 20)
    assert begun(project) == 1


def test_a_worker_that_was_frozen_beyond_its_lease_starts_nothing_that_a_peer_took_over(
    project, redis_client, wait_for
) -> None:
    frozen = project.worker(
        "-c", "1", "--lease", str(LEASE_S), "-n", "one@h", OPSQ_STATE_DIR=str(project.folder / "one")
    )
    for number in range(50):
        send(redis_client, "early", number, 0.003, task_id=f"id-{number}")
    wait_for(lambda: project.effects(), what="it works")
    family = [psutil.Process(frozen.pid), *psutil.Process(frozen.pid).children(recursive=True)]
    for each in family:
        each.suspend()
    project.worker("-c", "1", "--lease", str(LEASE_S), "-n", "two@h", OPSQ_STATE_DIR=str(project.folder / "two"))
    wait_for(lambda: all_done(redis_client), 20, "a peer takes over")
    for each in family:
        each.resume()
    send(redis_client, "late", 99, task_id="id-99")
    wait_for(lambda: project.effects()["99"] and all_done(redis_client), 20)
    assert max(project.effects().values()) == 1, "nothing has its effect twice"
    dead = redis_client.hlen("opsq:dead:{celery}")
    assert len(set(project.effects()) - {"99"}) + dead >= 50
    assert frozen.stop() == 0


@pytest.mark.parametrize("first", ["child", "parent"])
def test_whichever_of_its_processes_wakes_first_what_a_peer_has_run_is_not_started(
    project, redis_client, wait_for, first: str
) -> None:
    """The child alone sees that its lease has run out; of one that was renewed meanwhile its parent has told."""
    frozen = project.worker(
        "-c", "1", "--lease", str(LEASE_S), "-n", "one@h", OPSQ_STATE_DIR=str(project.folder / "one")
    )
    numbers = range(4000)
    raws = [
        writing.build(task="proj.late", id=f"id-{number}", args=[number, 0.0003], kwargs={}, queue="celery")
        for number in numbers
    ]
    redis_client.lpush("celery", *raws)
    wait_for(lambda: len(project.effects()) > 200, what="it takes many at once")
    (child,) = children_of(frozen)
    parent = psutil.Process(frozen.pid)
    family = [*parent.children(), parent, child]

    def frozen_with_some_in_hand() -> bool:
        for each in family:
            each.suspend()
        if left_in_flight(redis_client) >= 5:
            return True
        for each in family:
            each.resume()
        return False

    wait_for(frozen_with_some_in_hand, what="it is frozen in the middle of a batch")
    begun_by = [pid for what, _number, pid in project.marks() if what == "begin"].count(child.pid)
    project.worker("-c", "1", "--lease", str(LEASE_S), "-n", "two@h", OPSQ_STATE_DIR=str(project.folder / "two"))
    wait_for(lambda: all_done(redis_client), 60, "a peer has run all of it")
    if first == "parent":
        for each in family[:-1]:
            each.resume()
        wait_for(lambda: renewed(redis_client, "one@h"), what="the lease of the frozen child is renewed")
    switches = child.num_ctx_switches().voluntary
    child.resume()
    wait_for(lambda: child.num_ctx_switches().voluntary > switches + 5, what="it has looked")
    for each in family:
        each.resume()
    send(redis_client, "late", 9999, task_id="id-9999")
    wait_for(lambda: project.effects()["9999"] and all_done(redis_client), 20)
    begun_after = [pid for what, number, pid in project.marks() if what == "begin" and number != "9999"]
    assert begun_after.count(child.pid) - begun_by <= 1, "none but the one whose turn had come"
    assert frozen.stop() == 0


def test_what_an_idle_child_holds_unknowingly_is_run_before_long(project, redis_client, wait_for) -> None:
    """A turn may reach the server after all comparing is over: who waits at the broker is told as of any message."""
    worker = project.worker("-c", "1", "--lease", "120")
    ((consumer, _end),) = wait_for(lambda: redis_client.zrange("opsq:consumers:{celery}", 0, -1, withscores=True))
    hand_over_unknowingly(redis_client, consumer.decode())
    wait_for(project.effects, 60, "the message is run")
    wait_for(lambda: all_done(redis_client))
    assert worker.stop() == 0


def test_what_a_child_holds_unknowingly_that_waits_for_its_turn_to_wait_is_told_by_its_parent(
    project, redis_client, wait_for
) -> None:
    """Such a one hears nothing from the broker; the parent's next renewal shows what it holds."""
    worker = project.worker("-c", "2", "--lease", "120")
    control = App("client", broker=project.url, set_as_current=False).control
    (behind,) = wait_for(lambda: waiting_for_a_lock({child.pid for child in children_of(worker)}), 30)

    def its_consumer() -> str | None:
        control.rate_limit("proj.add", "100/s")  # the parent renews at once, and says who its children are
        (record,) = (json.loads(redis_client.get(key)) for key in redis_client.scan_iter("opsq:worker:*"))
        found = (child["slot"] for child in record["children"] if child["pid"] == behind)
        return next((f"{record['id']}:{slot}" for slot in found), None)

    hand_over_unknowingly(redis_client, wait_for(its_consumer, 30))
    control.rate_limit("proj.add", "100/s")
    wait_for(project.effects, 35, "the message is run")  # less than the next renewal but one takes to come
    wait_for(lambda: all_done(redis_client))
    assert worker.stop() == 0


def hand_over_unknowingly(client: redis.Redis, consumer: str) -> None:
    """A message lies in the store of a child, as if its turn had arrived late."""
    raw = writing.build(task="proj.late", id="id-1", args=[1], kwargs={}, queue="celery")
    client.hset(f"opsq:inflight:{{celery}}:{consumer}", "999000", raw)


def waiting_for_a_lock(pids: set[int]) -> set[int]:
    """Those that the kernel holds back at a lock of somebody else."""
    words = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {int(line[5]) for line in words if line[1] == "->"} & pids


def renewed(client: redis.Redis, node: str) -> bool:
    """Whether the leases of a node's consumers run."""
    seconds, micros = client.time()
    ends = [
        end for name, end in client.zrange("opsq:consumers:{celery}", 0, -1, withscores=True) if node.encode() in name
    ]
    return bool(ends) and min(ends) > seconds * 1000 + micros / 1000


def test_an_idle_worker_renews_three_times_a_lease_arms_once_and_beats_and_sends_nothing_else(
    project, redis_server
) -> None:
    worker = project.worker("-c", "16", "--lease", str(LEASE_S))
    seen: list[str] = []
    with redis.Redis.from_url(redis_server.url(), socket_timeout=10).monitor() as monitor:
        listening = iter(monitor.listen())
        while not next(listening)["command"].startswith("SET opsq:worker:"):
            pass
        begin = time.monotonic()
        while time.monotonic() - begin < 3 * LEASE_S:
            seen.append(next(listening)["command"])
    assert worker.alive()
    renewals = sum(command.startswith("SET opsq:worker:") for command in seen)
    turns = sum(
        command.startswith("EVALSHA")
        and " opsq:inflight:" in command.partition(" opsq:paused:")[0]
        and "opsq:paused" in command
        for command in seen
    )
    assert 7 <= renewals <= 10
    assert turns <= 1, "it has nothing to take"
    watches = sum(command.startswith("EXISTS celery") for command in seen)
    assert 1 <= watches <= 4, "it looks once a lease whether a notice got lost"
    looks = sum(command.startswith("EVALSHA") and " opsq:delayed:" in command for command in seen)
    assert 1 <= looks <= 4, "what is due is asked for once a lease while nothing is"
    told_whole = [command for command in seen if command.startswith("EVAL ")]
    assert len(told_whole) <= 1, "a server that has just started is told the turn once"
    words = {command.split()[0] for command in seen if command not in told_whole}
    assert words <= {"EVALSHA", "SET", "HGETALL", "CLIENT", "PUBLISH", *LUA_CALLS}
    published = [command.split()[1] for command in seen if command.startswith("PUBLISH")]
    assert set(published) <= {"/0.celeryev/worker.heartbeat"}
    assert len(published) <= 3 * LEASE_S / 2 + 1


def test_of_several_workers_somebody_asks_once_a_lease_what_is_due(
    project, redis_server, redis_client, wait_for
) -> None:
    for name in ("one", "two", "three"):
        state = str(project.folder / name)
        project.worker("-c", "1", "--lease", str(LEASE_S), "-n", f"{name}@h", OPSQ_STATE_DIR=state)
    wait_for(lambda: redis_client.zcard("opsq:consumers:{celery}") == 3)
    records, looks = 0, 0
    with redis.Redis.from_url(redis_server.url(), socket_timeout=10).monitor() as monitor:
        for told in monitor.listen():
            records += told["command"].startswith("SET opsq:worker:")
            looks += told["command"].startswith("EVALSHA") and " opsq:delayed:" in told["command"]
            if records == 3 * 3 * 6:
                break
    assert 3 <= looks <= 10, "in six leases"


#: What MONITOR shows of the scripts' inside.
LUA_CALLS = ("TIME", "ZADD", "HLEN", "ZRANGEBYSCORE", "ZRANGE", "HDEL", "EXISTS", "LLEN", "ZCARD")


def test_sixteen_idle_children_stop_within_a_tenth_of_a_second(project) -> None:
    """The time itself is a benchmark's; here: they need no push, no time-out and no lease to hear of the stop."""
    worker = project.worker("-c", "16", "--lease", "600")
    children = psutil.Process(worker.pid).children(recursive=True)
    assert len(children) == 17
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(10) == 0
    assert not any(child.is_running() for child in children)
