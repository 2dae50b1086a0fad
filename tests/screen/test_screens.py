"""What a person sees in a real terminal of 80 and of 140 columns, held against stored text.

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
from opsq.datastore.priorities import PRIORITIES
from opsq.protocol import writing

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


@pytest.fixture(params=[80, 140])
def terminal(
    request: pytest.FixtureRequest, tmp_path: Path, spawn: Spawner, redis_url: str, wait_for: Callable[..., Any]
) -> Iterator[Terminal]:
    """A terminal of each width, in a folder with a small project."""
    (tmp_path / "shop.py").write_text(APP)
    environment = spawn.environment({"OPSQ_BROKER_URL": redis_url, "OPSQ_STATE_DIR": str(tmp_path / "state")})
    terminal = Terminal(tmp_path, environment, request.param, wait_for)
    yield terminal
    terminal.end()


APP = """
from opsq import Celery

app = Celery("shop")


@app.task(acks_late=True, max_retries=5, time_limit=300, soft_time_limit=240)
def charge(order): ...


@app.task(bind=True, ignore_result=True)
def send_a_confirmation_to_everybody_who_has_asked_for_one(self, order): ...
"""

DAY_MS = 86_400_000


def fill(client: redis.Redis) -> None:
    """Queues, workers, dead letters and results that are the same each time."""
    old = _tag(int(time.time() * 1000) - 3 * DAY_MS)
    for queue, count in (("celery", 3), ("mail", 1), ("a.queue.with.quite.a.long.name.of.some.tenant", 2)):
        for number in range(count):
            raw = writing.build(
                task="shop.charge", id=f"{queue[:6]}-{number}", args=[number], kwargs={}, queue=queue, origin="t"
            )
            client.lpush(queue, writing.changed(raw, {}, {"delivery_tag": old}))
        client.sadd(keys.QUEUES, queue)
    client.lpush(PRIORITIES.at_step("mail", 9), writing.changed(raw, {}, {"delivery_tag": old}))
    client.set(keys.paused("mail"), "1")
    later = time.time() * 1000 + 60_000
    client.zadd(keys.consumers("celery"), {f"shop@web1:0a1b2c3d:{slot}": later for slot in range(4)})
    client.zadd(keys.delayed("mail"), {"|x": later})
    _add_worker(client, later)
    _add_dead(client)
    _add_results(client)
    _add_schedule(client)
    _add_history(client)


def _tag(ms: int) -> str:
    text = f"{ms:012x}"
    return f"{text[:8]}-{text[8:]}-7000-8000-000000000000"


def _add_worker(client: redis.Redis, later: float) -> None:
    raw = writing.build(task="shop.charge", id=f"{1:032x}", args=[1], kwargs={}, queue="celery", origin="t")
    record = {"id": "shop@web1:0a1b2c3d", "node": "shop@web1", "pid": 4711, "host": "web1.example.net"}
    record |= {"since": time.time() - 3 * 86_400 - 1, "concurrency": 4, "pool": "prefork", "processed": 12345}
    record |= {"queues": ["celery", "mail", "a.queue.with.quite.a.long.name.of.some.tenant"], "version": "0.1.0"}
    record["children"] = [{"slot": 0, "pid": 4712, "number": 1, "since": time.time() - 2 * 86_400 - 1}]
    client.zadd(keys.WORKERS, {"shop@web1:0a1b2c3d": later})
    client.set(keys.worker("shop@web1:0a1b2c3d"), json.dumps(record), px=60_000)
    client.hset(keys.inflight("celery", "shop@web1:0a1b2c3d:0"), "1", raw)


def _add_dead(client: redis.Redis) -> None:
    for number, reason in enumerate(("unknown task 'shop.gone'", "started 5 times and lost each time: " * 3)):
        letter_id = f"{number:032x}"
        record = {"id": letter_id, "task": "shop.charge", "queue": "celery", "reason": reason, "host": "web1"}
        record |= {"time": 1_700_000_000.0 + number, "deliveries": 5, "error": None, "list": "celery"}
        record["message"] = '{"body": "x\\u001b[31mred"}'
        client.hset(keys.dead("celery"), letter_id, json.dumps(record))
        client.zadd(keys.dead_index("celery"), {letter_id: record["time"]})


def _add_results(client: redis.Redis) -> None:
    done = "2026-01-02T03:04:05.678900+00:00"
    blank = {"traceback": None, "children": [], "date_done": done}
    error = {"exc_type": "ValueError", "exc_message": ["the card was refused"], "exc_module": "builtins"}
    for number, told in enumerate(
        (
            {"status": "SUCCESS", "result": {"paid": True, "note": "größer " * 20}},
            {"status": "FAILURE", "result": error},
        )
    ):
        task_id = f"{number:08x}-0000-4000-8000-000000000000"
        client.set(keys.result(task_id), json.dumps({**told, **blank, "task_id": task_id}), ex=600)


def _add_history(client: redis.Redis) -> None:
    """Calls as the monitor keeps them, one with a control character in its arguments."""
    at = 1_700_000_000.0
    for number, told in enumerate(
        (
            {
                "state": "SUCCESS",
                "args": "(1,)",
                "kwargs": "{'currency': 'EUR'}",
                "result": "'paid'",
                "queue": "celery",
            },
            {"state": "FAILURE", "args": "('\x1b[31mred',)", "exception": "ValueError('the card was refused')"},
            {"state": "STARTED", "args": "(" + "'long', " * 40 + ")", "queue": "mail"},
        )
    ):
        record = {
            "id": f"{number:08x}-0000-4000-8000-000000000000",
            "name": "shop.charge",
            "worker": "shop@web1",
            **told,
        }
        times = {"received": at, "started": at + number, "updated": at + number, "runtime": 0.25 * (number + 1)}
        client.hset(keys.HISTORY, record["id"], json.dumps({**record, **times}))
        index = keys.HISTORY_TROUBLE if told["state"] == "FAILURE" else keys.HISTORY_INDEX
        client.zadd(index, {record["id"]: at + number})
    for key in (keys.HISTORY, keys.HISTORY_INDEX, keys.HISTORY_TROUBLE):
        client.expire(key, 600)


def _add_schedule(client: redis.Redis) -> None:
    """Entries of two zones, one of them paused, and a beat that ticks."""
    told = {"source": "app", "zone": "Europe/Berlin", "runs": 12345, "last": 1_800_000_000.5, "id": "x"}
    rows = {
        "täglich um acht": {"task": "shop.charge", "schedule": "0 8 * * mon-fri", "next": 1_800_050_000.0},
        "毎分": {"task": "shop.charge", "schedule": "every 1m", "next": 1_800_000_060.5, "zone": "Asia/Tokyo"},
        "reconcile all accounts of all tenants with the bank": {
            "task": "shop.send_a_confirmation_to_everybody_who_has_asked_for_one",
            "schedule": "0,15,30,45 0-6,18-23 1-7 */2 sun",
            "next": 1_800_000_100.0,
            "last": None,
            "runs": 0,
        },
    }
    client.sadd(keys.SCHEDULES, "shop")
    client.hset(
        keys.schedule("shop", "entries"), mapping={name: json.dumps({**told, **row}) for name, row in rows.items()}
    )
    client.sadd(keys.schedule("shop", "paused"), "毎分")
    client.set(keys.schedule("shop", "lease"), json.dumps({"host": "web1", "pid": 1}), px=60_000)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("help", ["--help"]),
        ("queues", ["queues"]),
        ("peek", ["queues", "peek", "celery"]),
        ("dead", ["dead"]),
        ("dead-show", ["dead", "show", f"{0:032x}"]),
        ("workers", ["workers"]),
        ("tasks", ["-A", "shop", "tasks"]),
        ("results", ["results"]),
        ("history", ["tasks", "--name", "charge"]),
        ("history-results", ["results", "--name", "shop.*"]),
        ("schedule", ["schedule"]),
        ("schedule-help", ["schedule", "add", "--help"]),
        ("mistake", ["-A", "shop", "run", "task", "shop.chrge"]),
        ("run-help", ["run", "task", "--help"]),
    ],
)
def test_a_screen_is_as_it_was(name: str, line: list[str], terminal: Terminal, redis_client: redis.Redis) -> None:
    fill(redis_client)
    check(name, terminal, terminal.see(*line))
    redis_client.flushdb()


@pytest.mark.parametrize("terminal", [80], indirect=True)
def test_a_terminal_is_painted_unless_it_must_not_be(terminal: Terminal, redis_client: redis.Redis) -> None:
    fill(redis_client)
    assert "\x1b[1m" in terminal.see("queues", styled=True)
    for plain in (["--no-color"], ["--plain"], ["-C"]):
        assert "\x1b[" not in terminal.see("queues", *plain, styled=True).replace("\x1b[0m", "")
    redis_client.flushdb()


@pytest.mark.parametrize("terminal", [80], indirect=True)
def test_what_destroys_asks_who_sits_there(terminal: Terminal, redis_client: redis.Redis) -> None:
    fill(redis_client)
    end = terminal.run("queues", "purge", "mail")
    terminal.wait_for(lambda: "throw away 3 messages of mail? [y/N]:" in terminal.screen(), 30)
    terminal.tmux("send-keys", "n", "Enter")
    terminal.wait_for(lambda: end in terminal.screen())
    assert redis_client.llen("mail") == 1
    terminal.run("queues", "purge", "mail")
    terminal.wait_for(lambda: end not in terminal.screen() and "[y/N]:" in terminal.screen(), 30)
    terminal.tmux("send-keys", "y", "Enter")
    terminal.wait_for(lambda: "thrown away: 3 messages of mail" in terminal.screen(), 30)
    assert redis_client.llen("mail") == 0
    redis_client.flushdb()
