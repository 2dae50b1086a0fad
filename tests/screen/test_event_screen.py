"""`opsq events`: the screen in a terminal of 80 and of 140 columns, lines in a pipe, and how both end."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from support.processes import Spawner
from support.terminal import Terminal, check

NODE = "celery@web1.example.org"
AT = 1_000_000_000.0


def events() -> list[dict[str, Any]]:
    """What two workers tell, the same each time."""

    def task(kind: str, uuid: str, **fields: Any) -> dict[str, Any]:
        return {"type": f"task-{kind}", "hostname": NODE, "uuid": uuid, "timestamp": AT, "clock": 1, **fields}

    mail = "shop.tasks.mail.send_a_confirmation_to_everybody"
    beat = {"type": "worker-heartbeat", "freq": 3600, "loadavg": [0.5, 1.25, 10.0], "timestamp": AT}
    return [
        {**beat, "hostname": NODE, "active": 1, "processed": 1234, "sw_ident": "opsq", "sw_ver": "0.1"},
        {**beat, "hostname": "celery@b", "active": 0, "processed": 9, "sw_ident": "py-celery", "sw_ver": "5.7"},
        {**beat, "type": "worker-offline", "hostname": "celery@gone"},
        task("received", "11111111-1111-4111-8111-111111111111", name="shop.charge", args="(1,)", kwargs="{}"),
        task("succeeded", "11111111-1111-4111-8111-111111111111", result="'paid'", runtime=0.25),
        task("received", "22222222-2222-4222-8222-222222222222", name=mail, args="()", kwargs="{'a': '\x1b[31m'}"),
        task("started", "22222222-2222-4222-8222-222222222222"),
        task("received", "33333333-3333-4333-8333-333333333333", name="shop.charge", args="(2,)", kwargs="{}"),
        task("failed", "33333333-3333-4333-8333-333333333333", exception="ValueError('no money')", traceback="..."),
        task("revoked", "44444444-4444-4444-8444-444444444444", expired=True, terminated=False, signum=None),
    ]


def publish(client: redis.Redis, told: list[dict[str, Any]]) -> None:
    body = json.dumps(told)
    client.publish("/0.celeryev/task.multi", json.dumps({"body": body, "content-type": "application/json"}))


@pytest.fixture(params=[80, 140])
def terminal(
    request: pytest.FixtureRequest, tmp_path: Path, spawn: Spawner, redis_url: str, wait_for: Callable[..., Any]
) -> Iterator[Terminal]:
    environment = spawn.environment({"OPSQ_BROKER_URL": redis_url, "OPSQ_STATE_DIR": str(tmp_path / "state")})
    terminal = Terminal(tmp_path, environment, request.param, wait_for)
    yield terminal
    terminal.end()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_the_screen_shows_workers_and_the_latest_tasks(terminal: Terminal, redis_client: redis.Redis) -> None:
    end = terminal.run("events")
    terminal.wait_for(lambda: redis_client.pubsub_numpat() == 1, 20, "it listens")
    publish(redis_client, events())
    terminal.wait_for(lambda: "REVOKED" in terminal.screen(), 20, "they are shown")
    shown = re.sub(r"\d+\.\d tasks/s", "N tasks/s", terminal.screen())
    check("events", terminal, shown)
    terminal.tmux("send-keys", "C-c")
    terminal.wait_for(lambda: end in terminal.screen(), 20, "it ends")


@pytest.fixture
def listen(
    spawn: Spawner, opsq_argv: list[str], redis_url: str, redis_client: redis.Redis, wait_for: Callable[..., Any]
) -> Callable[..., Any]:
    """`listen(*words)` starts `opsq events` with its output in a file, and waits until it listens."""

    def start(*words: str) -> Any:
        running = spawn([*opsq_argv, "events", *words], env={"OPSQ_BROKER_URL": redis_url})
        wait_for(lambda: redis_client.pubsub_numpat() == 1, what="it listens")
        return running

    return start


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--type", "task-failed"], ["33333333"]),
        (["--task", "shop.tasks.*"], ["22222222", "22222222"]),
        (["--worker", "celery@b"], ["celery@b"]),
        (["--id", "1111*", "--type", "task-s*"], ["11111111"]),
        (["--limit", "3"], [NODE, "celery@b", "celery@gone"]),
    ],
)
def test_only_what_is_wanted_is_shown(
    listen: Any, redis_client: redis.Redis, wait_for: Any, words: list[str], expected: list[str]
) -> None:
    running = listen("--json", *words)
    publish(redis_client, events())

    def shown() -> list[dict[str, Any]]:
        return [json.loads(line) for line in running.output().splitlines() if line.startswith("{")]

    wait_for(lambda: len(shown()) == len(expected), what="they are shown")
    for each, wanted in zip(shown(), expected, strict=True):
        assert wanted in (each["hostname"], str(each.get("uuid"))[:8])
    if "--limit" in words:
        assert running.wait() == 0
    else:
        assert running.stop(signal.SIGINT) == 0


def test_a_pipe_gets_a_line_an_event_without_control_characters(
    listen: Any, redis_client: redis.Redis, wait_for: Any
) -> None:
    running = listen()
    publish(redis_client, events())
    wait_for(lambda: "task revoked" in running.output(), what="all are shown")
    lines = running.output().splitlines()
    assert lines[0] == "-> evdump: starting capture..."
    assert f"{NODE} [2001-09-09 01:46:40+00:00] heartbeat: active=1," in lines[1]
    assert any(
        "task failed: shop.charge(33333333-" in line and "exception=ValueError('no money')" in line for line in lines
    )
    assert "\x1b" not in running.output()
    assert running.stop(signal.SIGINT) == 0


def test_a_broker_that_goes_away_is_said_and_waited_for(
    spawn: Spawner, opsq_argv: list[str], wait_for: Any, redis_client: redis.Redis, redis_url: str
) -> None:
    running = spawn([*opsq_argv, "events"], env={"OPSQ_BROKER_URL": redis_url})

    def last_commands() -> list[str]:
        return [client["cmd"] for client in redis_client.client_list(_type="pubsub")]

    wait_for(lambda: "publish" in last_commands(), what="it listens and has called the workers")
    redis_client.client_kill_filter(_type="pubsub")
    wait_for(lambda: "lost the broker" in running.output(), what="it says so")
    wait_for(lambda: redis_client.pubsub_numpat() == 1, what="it listens again")
    publish(redis_client, events())
    wait_for(lambda: "task revoked" in running.output(), what="all are shown")
    assert running.stop(signal.SIGINT) == 0


def test_no_broker_and_celerys_snapshots_are_refused_in_a_sentence(
    spawn: Spawner, opsq_argv: list[str], free_port: Callable[[], int], redis_url: str
) -> None:
    away = spawn([*opsq_argv, "events"], env={"OPSQ_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0"})
    assert away.wait() == 3
    assert "cannot reach Redis at" in away.output()
    camera = spawn([*opsq_argv, "events", "-c", "proj.Camera"], env={"OPSQ_BROKER_URL": redis_url})
    assert camera.wait() == 2
    assert "opsq monitor" in camera.output()
