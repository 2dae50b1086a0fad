"""What a person sees of hosts and their jobs in a terminal of 80 and of 140 columns.

OPSQ_TEST_STORE=1 writes the stored text anew: look at the difference before it is kept.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from support.processes import Spawner
from support.terminal import Terminal, check

from opsq.datastore import keys
from opsq.hosts.facts import fixed_facts, sealed_facts
from opsq.hosts.job import Job
from opsq.hosts.keyring import KeyRing
from opsq.hosts.order import Answer, Order, Output
from opsq.hosts.outbox import described
from opsq.protocol import signing
from opsq.protocol.signing import PrivateKey

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

JOB = "3f9c0a17be52"
TIME = 1_700_000_000.0
HOSTS = [f"web{number:02d}" for number in range(1, 9)]
NOTHING = described(b"", 0)


@pytest.fixture(params=[80, 140])
def terminal(
    request: pytest.FixtureRequest, tmp_path: Path, spawn: Spawner, redis_url: str, wait_for: Callable[..., Any]
) -> Iterator[Terminal]:
    environment = spawn.environment({"OPSQ_BROKER_URL": redis_url, "OPSQ_STATE_DIR": str(tmp_path / "state")})
    terminal = Terminal(tmp_path, environment, request.param, wait_for)
    yield terminal
    terminal.end()


def key_of(name: str) -> PrivateKey:
    return PrivateKey(name.encode().ljust(32, b"."))


def add_host(client: redis.Redis, name: str, present: bool, **more: Any) -> None:
    key = key_of(name)
    facts = {**fixed_facts(name, key.public, ["front", "eu"]), "since": TIME, "load": 0.25, "slots": 8, "free": 8}
    facts |= {
        "at": time.time() - 3 * 86_400 - 1,
        "clock": 0.0,
        "version": "0.1.234",
        "refusing": None,
        "stopped": False,
        **more,
    }
    client.sadd(keys.HOSTS, name)
    client.set(keys.host_facts(name), sealed_facts(key, facts), ex=60)
    if present:
        client.set(keys.host_lease(name), "machine/place.life", ex=60)


def fill(client: redis.Redis, ring: KeyRing) -> None:
    """Hosts of every kind, and a job with all that can come of one."""
    ring.ensure()
    for name in HOSTS:
        add_host(client, name, present=True)
    reason = "it expired 540 s ago by the clock of this host (clock off by +600 s against Redis)"
    add_host(client, "late", present=True, clock=600.0, refusing={"reason": reason, "at": time.time()})
    add_host(client, "db1", present=False)
    add_host(client, "db2", present=False, stopped=True)
    order = Order(
        "run", JOB, 0, "db1,late,web[01-08]", "anna@desk", TIME, TIME + 60, "a" * 32, shell="df -h / | tail -1"
    )
    value = signing.seal(ring.operator(), signing.ORDER, order.to_bytes())
    client.rpush(keys.job_order(JOB), value)
    client.zadd(keys.JOBS, {JOB: TIME})
    good, bad = b"/dev/sda1  40G  31G  9.0G  78% /\n", b"df: /: Input/output error\n"
    kept = {data: described(data, len(data)) for data in (good, bad)}
    job = Job.of([(order, ["db1", "late", *HOSTS])], [])
    for name in HOSTS:
        fine = name != "web05"
        told = ended(name, order, 0 if fine else 1, kept[good] if fine else NOTHING, NOTHING if fine else kept[bad])
        add_answer(client, job, told)
    add_answer(client, job, Answer("refused", JOB, 0, order.nonce, "late", "i", reason))
    job.settle(["db1"], "silent", "")
    client.set(keys.job_summary(JOB), json.dumps(job.summary()), ex=60)
    for data, output in kept.items():
        client.set(keys.job_output(JOB, output.sha256), data, ex=60)
    for key in (keys.job_order(JOB), keys.job_answers(JOB)):
        client.expire(key, 60)


def ended(name: str, order: Order, code: int, out: Output, err: Output) -> Answer:
    times = {"begin": TIME, "end": TIME + 0.25}
    return Answer("ended", JOB, 0, order.nonce, name, "i", exit=code, out=out, err=err, **times)  # type: ignore[arg-type]


def add_answer(client: redis.Redis, job: Job, answer: Answer) -> None:
    job.take(answer)
    sealed = signing.seal(key_of(answer.host), signing.ANSWER, answer.to_bytes())
    client.xadd(keys.job_answers(JOB), {"a": sealed})


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("hosts", ["hosts"]),
        ("jobs", ["jobs"]),
        ("jobs-show", ["jobs", "show", JOB]),
        ("host-batch-help", ["run", "host-batch", "--help"]),
        ("host-batch-mistake", ["run", "host-batch", "--hosts", "wbe01", "uptime"]),
    ],
)
def test_a_screen_is_as_it_was(
    name: str, line: list[str], terminal: Terminal, redis_client: redis.Redis, tmp_path: Path
) -> None:
    fill(redis_client, KeyRing(tmp_path / "state" / "keys"))
    if name == "jobs-show":
        terminal.see("hosts")  # by which the keys of the hosts are known
    shown = terminal.see(*line)
    check(name, terminal, shown)
