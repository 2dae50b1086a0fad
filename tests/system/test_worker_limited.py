"""Limits over real workers: what runs when and how many at once, as the tasks themselves write it down."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest
from support import lab as labs
from support.lab import OPSQ, Lab, Mark
from support.processes import Running

TASKS = """
@app.task(rate_limit="20/s", rate_limit_scope="cluster", acks_late=True)
def steady(n):
    mark("steady", n)


@app.task(rate_limit="8/s")
def own(n):
    mark("own", n)


@app.task(rate_limit="1/h", rate_limit_scope="cluster")
def rare(n):
    mark("rare", n)


@app.task(max_concurrency=2, acks_late=True)
def two(n, seconds=0.02):
    mark("begin two", n)
    time.sleep(seconds)
    mark("end two", n)


@app.task(max_concurrency=1, concurrency_key="{user}", acks_late=True)
def of_user(user, n):
    mark(f"begin {user}", n)
    time.sleep(0.01)
    mark(f"end {user}", n)


@app.task(circuit_breaker={"fail_max": 2, "reset_timeout": 0.5}, bind=True, max_retries=5)
def outside(self, n):
    mark("try", n)
    if os.path.exists(os.environ["MARKS"] + ".down"):
        raise self.retry(countdown=0)
    mark("done", n)


@app.task
def mail(n):
    mark("begin mail", n)
    time.sleep(0.05)
    mark("end mail", n)


app.conf.queue_limits = {"mail": {"max_concurrency": 1}}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        yield lab


@pytest.fixture(autouse=True)
def _nothing_is_left(lab: Lab) -> Iterator[None]:
    yield
    for running in lab.spawn.running:
        if running.alive():
            running.stop()
    lab.redis.flushall()


def limited(lab: Lab, queue: str = "celery") -> int:
    """Messages that wait for their limits."""
    return sum(int(lab.redis.llen(key)) for key in lab.redis.scan_iter(f"opsq:limited:{{{queue}}}:*"))


def worker(lab: Lab, *options: str, name: str = "") -> Running:
    """Renewals are so rare that only notices and the clock of the limits move what waits."""
    return lab.worker("-c", "2", "--lease", "60", "-Q", "celery,mail", *options, name=name)


def most_at_once(marks: list[Mark], begin: str, end: str) -> int:
    """The largest number of tasks that had begun and not ended."""
    running = most = 0
    for mark in sorted(marks, key=lambda mark: (mark.time, mark.what == begin)):
        running += {begin: 1, end: -1}.get(mark.what, 0)
        most = max(most, running)
    return most


def fits(times: list[float], rate: float, early_s: float = 0.02 + 0.03) -> bool:
    """Whether no window of these starts holds more than the rate allows (the second half is for this machine)."""
    return all(
        times[j] - times[i] >= (j - i) / rate - early_s for i in range(len(times)) for j in range(i + 1, len(times))
    )


def test_two_workers_keep_one_rate_together(lab: Lab) -> None:
    worker(lab, name="a"), worker(lab, name="b")
    before = len(lab.written("steady"))
    lab.push("celery", *[("steady", n) for n in range(30)])
    lab.push("celery", ("nap", "passes by"))
    lab.wait_mark("end", "passes by")
    assert len(lab.written("steady")) < before + 15
    lab.wait_for(lambda: len(lab.written("steady")) == before + 30, "all have run")
    times = sorted(mark.time for mark in lab.written("steady")[before:])
    assert fits(times, 20)
    assert times[-1] - times[0] < labs.soon(29 / 20)
    assert len({mark.text for mark in lab.written("steady")[before:]}) == 30


def test_each_worker_has_a_rate_of_its_own(lab: Lab) -> None:
    first, second = worker(lab, name="c"), worker(lab, name="d")
    before = len(lab.written("own"))
    lab.push("celery", *[("own", n) for n in range(24)])
    lab.wait_for(lambda: len(lab.written("own")) == before + 24, "all have run")
    marks = lab.written("own")[before:]
    of_worker: dict[int, list[float]] = {}
    for mark in marks:
        parent = next(each.process.pid for each in (first, second) if str(mark.pid) in pids(each))
        of_worker.setdefault(parent, []).append(mark.time)
    assert len(of_worker) == 2
    assert all(fits(sorted(times), 8) for times in of_worker.values())
    assert max(mark.time for mark in marks) - min(mark.time for mark in marks) < labs.soon(23 / 8)


def pids(running: Running) -> set[str]:
    """All processes of a worker."""
    import psutil

    return {str(child.pid) for child in psutil.Process(running.process.pid).children(recursive=True)}


def test_one_child_runs_them_in_the_order_in_which_they_were_sent(lab: Lab) -> None:
    worker(lab, "-c", "1")
    before = len(lab.written("steady"))
    lab.push("celery", *[("steady", n) for n in range(12)])
    lab.wait_for(lambda: len(lab.written("steady")) == before + 12, "all have run")
    assert [mark.text for mark in lab.written("steady")[before:]] == [str(n) for n in range(12)]


def test_what_a_dead_worker_has_put_away_runs_elsewhere(lab: Lab) -> None:
    first = worker(lab, name="gone")
    before = len(lab.written("steady"))
    lab.push("celery", *[("steady", n) for n in range(20)])
    lab.wait_for(lambda: limited(lab) > 10, "some wait")
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    worker(lab, name="next")
    lab.wait_for(
        lambda: {mark.text for mark in lab.written("steady")[before:]} == {str(n) for n in range(20)}, "all ran"
    )
    lab.wait_for(lambda: not lab.in_flight() and not limited(lab), "nothing is left")


def test_a_limit_changed_by_command_holds_for_what_waits_and_for_workers_to_come(lab: Lab) -> None:
    worker(lab, name="e")
    before = len(lab.written("rare"))
    lab.push("celery", *[("rare", n) for n in range(6)])
    lab.wait_for(lambda: limited(lab) == 5, "five wait")
    send_control(lab, "rate_limit", task_name="proj.rare", rate_limit="50/s")
    lab.wait_for(lambda: len(lab.written("rare")) == before + 6, "all have run")
    lab.spawn.running[-1].stop()
    worker(lab, name="f")
    lab.push("celery", *[("rare", n) for n in range(5)])
    lab.wait_for(lambda: len(lab.written("rare")) == before + 11, "the rate stands in Redis")


def test_a_reload_brings_other_limits_also_to_what_waits(lab: Lab) -> None:
    running = worker(lab, name="r")
    before = len(lab.written("rare"))
    lab.push("celery", *[("rare", n) for n in range(4)])
    lab.wait_for(lambda: limited(lab) == 3, "three wait")
    source = lab.folder / "proj.py"
    text = source.read_text()
    try:
        source.write_text(text.replace('rate_limit="1/h"', 'rate_limit="100/s"'))
        running.process.send_signal(signal.SIGHUP)
        lab.wait_for(lambda: len(lab.written("rare")) == before + 4, "all have run")
    finally:
        source.write_text(text)
    assert "other limits of proj.rare" in running.output()


def test_a_worker_alone_may_be_told_another_rate(lab: Lab) -> None:
    worker(lab, name="g")
    before = len(lab.written("own"))
    send_control(lab, "rate_limit", task_name="proj.own", rate_limit="1/h")
    lab.push("celery", ("nap", "g"))
    lab.wait_mark("end", "g")
    lab.wait_for(lambda: not sends_new_rate(lab), "it was heard")
    lab.push("celery", *[("own", n) for n in range(4)])
    lab.wait_for(lambda: limited(lab) >= 3, "three wait")
    assert len(lab.written("own")) - before <= 1
    send_control(lab, "rate_limit", task_name="proj.own", rate_limit="0")
    lab.wait_for(lambda: len(lab.written("own")) == before + 4, "the limit is lifted")


def sends_new_rate(lab: Lab) -> bool:
    """Whether the worker's record does not have the rate yet."""
    records = [lab.redis.get(key) or b"" for key in lab.redis.scan_iter("opsq:worker:*")]
    return not any(b'"proj.own": "1/h"' in record for record in records)


def send_control(lab: Lab, method: str, **arguments: object) -> None:
    import base64
    import json

    body = {"method": method, "arguments": arguments, "destination": None, "pattern": None, "matcher": None}
    message = {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"clock": 1, "expires": time.time() + 10},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": labs.new_id(),
            "delivery_mode": 2,
            "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
            "priority": 0,
        },
    }
    lab.wait_for(lambda: lab.redis.publish("/0.celery.pidbox", json.dumps(message)), "somebody hears")


def test_never_more_than_two_at_once_over_two_workers(lab: Lab) -> None:
    worker(lab, name="h"), worker(lab, name="i")
    before, ended = len(lab.written()), len(lab.written("end two"))
    lab.push("celery", *[("two", n) for n in range(40)])
    lab.wait_for(lambda: len(lab.written("end two")) == ended + 40, "all have run")
    assert most_at_once(lab.written()[before:], "begin two", "end two") == 2


def test_one_at_once_for_each_key_and_keys_beside_each_other(lab: Lab) -> None:
    worker(lab, name="j"), worker(lab, name="k")
    lab.push("celery", *[("of_user", user, n) for n in range(8) for user in ("ann", "ben", "eve")])
    lab.wait_for(lambda: all(len(lab.written(f"end {user}")) == 8 for user in ("ann", "ben", "eve")), "all have run")
    marks = lab.written()
    for user in ("ann", "ben", "eve"):
        assert most_at_once(marks, f"begin {user}", f"end {user}") == 1
    together = [
        Mark(mark.what.partition(" ")[0], mark.text, mark.pid, mark.time)
        for mark in marks
        if mark.what.rpartition(" ")[2] in ("ann", "ben", "eve")
    ]
    assert most_at_once(together, "begin", "end") > 1


def test_a_queue_has_places_of_its_own(lab: Lab) -> None:
    worker(lab, name="l")
    lab.push("mail", *[("mail", n) for n in range(4)])
    lab.push("celery", ("nap", "beside mail"))
    lab.wait_for(lambda: len(lab.written("end mail")) == 4, "all have run")
    assert most_at_once(lab.written(), "begin mail", "end mail") == 1
    assert lab.written("end", "beside mail")[0].time < lab.written("end mail")[-1].time


@pytest.mark.parametrize("whom", ["child", "worker"])
def test_nothing_is_lost_and_no_place_is_kept_when_processes_are_killed(lab: Lab, whom: str) -> None:
    """At random instants, while tasks with places run: what was killed runs again, and never more than two at once."""
    chance = random.Random(whom)
    base = 1000 if whom == "child" else 2000
    count, kills = 90, 50
    before = len(lab.written())
    killed: dict[int, float] = {}
    running = worker(lab, name=f"victim-{whom}")
    lab.push("celery", *[("two", n, 0.03) for n in range(base, base + count)])
    for _ in range(kills):
        time.sleep(chance.uniform(0.01, 0.06))
        if whom == "child":
            victims = [mark.pid for mark in lab.written("begin two")[-2:]]
            for pid in victims[:1]:
                kill(pid)
                killed[pid] = time.time()
        elif chance.random() < 0.2:
            running.process.kill()
            running.process.wait()
            killed |= {mark.pid: time.time() for mark in lab.written()[before:] if mark.pid not in killed}
            running = worker(lab, name=f"victim-{chance.random()}")
    wanted = {str(n) for n in range(base, base + count)}

    def is_over() -> bool:
        ended = {mark.text for mark in lab.written("end two")} | set_of_dead(lab)
        return wanted <= ended and not lab.in_flight() and not limited(lab)

    lab.wait_for(is_over, "all have run or are dead", 25)
    lab.push("celery", ("two", base + count), ("two", base + count + 1))
    lab.wait_mark("end two", str(base + count + 1))  # no place is kept by the dead
    assert overlapping(lab.written()[before:], killed) <= 2
    lab.wait_for(lambda: not lab.redis.exists("opsq:places:task:proj.two"), "nobody holds a place")
    assert not lab.redis.keys("opsq:passes:*")


def test_a_lost_host_keeps_no_place_and_loses_nothing_that_waits(lab: Lab) -> None:
    """All its processes are killed at once; a worker elsewhere takes over when the leases have run out."""
    before, killed = len(lab.written()), dict[int, float]()
    wanted = {str(n) for n in range(5000, 5040)}
    lab.push("celery", *[("two", n, 0.05) for n in range(5000, 5040)])
    lab.push("celery", *[("steady", n) for n in range(5000, 5040)])
    for host in range(4):
        enough = len(lab.written("end two")) + 4
        environment = {"OPSQ_STATE_DIR": str(lab.folder / f"host-{host}")}
        running = lab.worker("-c", "2", "--lease", "1", name=f"host-{host}", **environment)
        if host == 3:
            break
        lab.wait_for(lambda enough=enough: len(lab.written("end two")) >= enough, "it has taken over")
        everybody = [running.process.pid, *map(int, pids(running))]
        for pid in everybody:
            kill(pid)
        killed |= dict.fromkeys(everybody, time.time())
        running.process.wait()

    def is_over() -> bool:
        all_of = all(wanted <= {mark.text for mark in lab.written(what)} for what in ("end two", "steady"))
        return all_of and not lab.in_flight() and not limited(lab)

    lab.wait_for(is_over, "all have run", 25)
    assert overlapping(lab.written()[before:], killed) <= 2
    assert fits(sorted(mark.time for mark in lab.written("steady") if mark.text in wanted), 20)
    ends = Counter(mark.text for mark in lab.written("end two") if mark.text in wanted)
    assert ends.total() - len(wanted) <= 2 * 3, "only what was in hand when its host was lost has run again"
    lab.wait_for(lambda: not lab.redis.exists("opsq:places:task:proj.two"), "nobody holds a place")
    assert not lab.redis.keys("opsq:passes:*")


def set_of_dead(lab: Lab) -> set[str]:
    """The numbers of tasks among the dead letters."""
    import base64
    import json

    bodies = [json.loads(letter["message"])["body"] for letter in lab.dead().values()]
    return {str(json.loads(base64.b64decode(body))[0][0]) for body in bodies}


def kill(pid: int) -> None:
    import os
    from contextlib import suppress

    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def overlapping(marks: list[Mark], killed: dict[int, float]) -> int:
    """The most at once, where who was killed runs nothing any more."""
    running: set[int] = set()
    most = 0
    for mark in sorted(marks, key=lambda mark: mark.time):
        if mark.what == "begin two":
            running = {pid for pid in running if killed.get(pid, mark.time) >= mark.time} | {mark.pid}
            most = max(most, len(running))
        elif mark.what == "end two":
            running.discard(mark.pid)
    return most


def test_a_circuit_spares_the_retries_and_tries_one_after_a_while(lab: Lab) -> None:
    down = lab.folder / "marks.down"
    down.touch()
    running = worker(lab, name="m")
    lab.push("celery", *[("outside", n) for n in range(5)])
    lab.wait_for(lambda: "circuit of proj.outside is open" in running.output(), "it opens")
    lab.wait_for(lambda: limited(lab) == 5, "all wait")
    tries = len(lab.written("try"))
    assert tries <= 6
    down.unlink()
    lab.wait_for(lambda: len(lab.written("done")) == 5, "all have run")
    assert "circuit of proj.outside is closed" in running.output()
    assert running.output().count("is open") == 1
    first, second = sorted(mark.time for mark in lab.written("try"))[tries - 1 : tries + 1]
    assert second - first > 0.3


@pytest.mark.parametrize("how", ["id", "stamp", "by the command"])
def test_what_is_revoked_while_it_waits_is_told_so_at_once(lab: Lab, how: str) -> None:
    """And what waits behind it goes on waiting."""
    running = worker(lab, name=f"revoking {how}".replace(" ", "-"))
    more = {"headers": {"stamped_headers": ["shop"], "stamps": {"shop": how}}} if how == "stamp" else {}
    first = lab.send("rare", f"{how} 1")
    lab.result(first)
    gone, stays = lab.send("rare", f"{how} 2", **more), lab.send("rare", f"{how} 3")
    lab.wait_for(lambda: limited(lab) == 2, "two wait")
    if how == "id":
        lab.app.control.revoke(gone)
    elif how == "stamp":
        lab.app.control.revoke_by_stamped_headers({"shop": how})
    else:
        opsq(lab, "tasks", "revoke", gone, "--yes")
    lab.result(gone, "REVOKED")
    assert limited(lab) == 1
    assert lab.state(stays) is None
    assert not lab.written("rare", f"{how} 2")
    told = json.loads(opsq(lab, "queues", "peek", "celery", "--json"))["messages"]
    assert [(each["id"], each["limits"]) for each in told] == [(stays, "task proj.rare")]
    assert opsq(lab, "queues", "move", "celery", "elsewhere", "--yes", "--json").count('"moved": 1')
    assert not limited(lab)
    assert lab.depth("elsewhere") == 1
    assert running.stop() == 0


def opsq(lab: Lab, *words: str) -> str:
    """What a command says."""
    argv = [*OPSQ, "-A", "proj", *words]
    environment = lab.spawn.environment(lab.environment)
    found = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=lab.folder, env=environment)
    assert found.returncode == 0, found
    return found.stdout


def test_what_waits_expires_and_is_not_run(lab: Lab) -> None:
    worker(lab, name="n")
    before = len(lab.written("steady"))
    lab.push("celery", *[("steady", n) for n in range(8)])
    task_id = lab.send("steady", "too late", expires=0.15)
    assert lab.result(task_id, "REVOKED")["status"] == "REVOKED"
    lab.wait_for(lambda: len(lab.written("steady")) == before + 8, "the others have run")
    assert not lab.written("steady", "too late")


def test_a_warm_stop_gives_back_and_the_next_worker_goes_on(lab: Lab) -> None:
    first = worker(lab, name="o")
    lab.push("celery", *[("two", n, 0.2) for n in range(5000, 5006)])
    lab.wait_mark("begin two", "5000")
    assert first.stop() == 0
    assert not lab.in_flight()
    worker(lab, name="p")
    lab.wait_for(lambda: {str(n) for n in range(5000, 5006)} <= {m.text for m in lab.written("end two")}, "all ran")


def test_starts_are_even(lab: Lab) -> None:
    worker(lab, "-c", "1", name="q")
    before = len(lab.written("steady"))
    lab.push("celery", *[("steady", n) for n in range(20)])
    lab.wait_for(lambda: len(lab.written("steady")) == before + 20, "all have run")
    gaps = [later.time - earlier.time for earlier, later in pairwise(lab.written("steady")[before:])]
    assert sorted(gaps)[len(gaps) // 2] == pytest.approx(0.05, abs=0.02)
