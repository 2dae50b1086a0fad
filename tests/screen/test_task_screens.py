"""What `opsq tasks --watch` and `--profile` show in a terminal of 80 and of 140 columns."""

from __future__ import annotations

import json
import re
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
from opsq.protocol import writing

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

WORKER = "shop@web1.example.org:0a1b2c3d"
RUNNING: list[tuple[str, Any]] = [
    (
        "shop.reports.of_the_whole_year.for_every_branch",
        {"current": 300, "total": 1200, "note": "Größe der Seiten " * 5},
    ),
    ("shop.charge", {"current": 1200, "total": 1200, "note": None}),
    ("shop.count", {"current": 77, "status": "\x1b[31m by hand"}),
    ("shop.silent", None),
]


@pytest.fixture(params=[80, 140])
def terminal(
    request: pytest.FixtureRequest, tmp_path: Path, spawn: Spawner, redis_url: str, wait_for: Callable[..., Any]
) -> Iterator[Terminal]:
    environment = spawn.environment({"OPSQ_BROKER_URL": redis_url, "OPSQ_STATE_DIR": str(tmp_path / "state")})
    terminal = Terminal(tmp_path, environment, request.param, wait_for)
    yield terminal
    terminal.end()


def fill(client: redis.Redis) -> None:
    """A worker that runs four tasks since two hours, of which three say how far they are."""
    record: dict[str, Any] = {"id": WORKER, "node": "shop@web1.example.org", "queues": ["celery"], "children": []}
    for slot, (task, progress) in enumerate(RUNNING):
        task_id = f"{slot:08x}-0000-4000-8000-000000000000"
        raw = writing.build(task=task, id=task_id, args=[], kwargs={}, queue="celery", origin="t")
        client.hset(keys.inflight("celery", f"{WORKER}:{slot}"), "1", raw)
        record["children"].append({"slot": slot, "pid": 4712, "number": 1, "since": time.time() - 7201 + 60 * slot})
        if progress is not None:
            told = {"status": "PROGRESS", "result": progress, "task_id": task_id}
            client.set(keys.result(task_id), json.dumps(told), ex=600)
    client.zadd(keys.WORKERS, {WORKER: time.time() * 1000 + 60_000})
    client.set(keys.worker(WORKER), json.dumps(record), px=60_000)


def test_what_runs_is_drawn_with_bars(terminal: Terminal, redis_client: redis.Redis) -> None:
    fill(redis_client)
    terminal.run("tasks", "--watch")
    terminal.wait_for(lambda: "shop.silent" in terminal.screen(), 20, "the tasks are shown")
    check("tasks-watch", terminal, terminal.screen())
    styled = terminal.screen(styled=True)
    assert "\x1b[31m by hand" not in styled
    terminal.tmux("send-keys", "C-c")
    terminal.wait_for(lambda: re.search(r"end-\d", terminal.screen()), 20, "Ctrl-C ends it")
    redis_client.flushdb()


def test_the_profile_is_a_table(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.sadd(keys.QUEUES, "celery")
    day = int(time.time()) // 86_400
    key = f"{keys.profile('celery')}:{day}"
    rows = {
        "shop.reports.of_the_whole_year.for_every_branch.and_more": (120, 9e7, 96, 4000),
        "shop.charge": (1234567, 5e6, 20, 0),
    }
    for task, (runs, cpu_us, bucket, kib) in rows.items():
        redis_client.hset(
            key, mapping={f"n:{task}": runs, f"cpu:{task}": int(cpu_us), f"kib:{task}": kib, f"{bucket}:{task}": runs}
        )
    redis_client.expire(key, 600)
    check("tasks-profile", terminal, terminal.see("tasks", "--profile"))
