"""A worker under `opsq up`: it is stopped before it would be killed, and `opsq reload` brings new code and flags."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from support.supervised import Supervised

CODE = """
import os
import time

from opsq import App
from opsq.utils.log import get_task_logger

app = App("proj")


@app.task
def version():
    get_task_logger("proj").debug("seen only at the level debug")
    return {version}


@app.task(acks_late=True)
def long(seconds):
    open({mark!r}, "a").write("begin\\n")
    until = time.monotonic() + seconds
    while time.monotonic() < until and not os.path.exists({mark!r} + ".release"):
        time.sleep(0.01)
    open({mark!r}, "a").write("end\\n")
    return {version}
"""


@pytest.fixture
def shop(shop: Supervised) -> Supervised:
    write(shop, 1)
    return shop


def write(shop: Supervised, version: int, more: str = "") -> None:
    """Each version has its length: by that and the second Python knows whether what it has compiled is today's."""
    path = shop.folder / "proj.py"
    path.write_text(CODE.format(version=version, mark=str(shop.folder / "marks")) + "\n" * version + more)


def marks(shop: Supervised) -> list[str]:
    path = shop.folder / "marks"
    return path.read_text().split() if path.exists() else []


def flags(shop: Supervised, worker: str, more: str = "") -> None:
    shop.toml(f"app = 'proj'\nservices = ['redis', 'worker']\n[worker]\n{worker}\n{more}")


def answer(shop: Supervised, *words: str) -> Any:
    return json.loads(shop.opsq("run", "task", *words, "--wait", "--timeout", "20").stdout)


def children(shop: Supervised) -> list[psutil.Process]:
    return psutil.Process(shop.process("worker").pid).children(recursive=True)


@pytest.mark.parametrize("name", ["worker", "jobs"])
def test_a_task_that_takes_longer_than_the_stop_is_given_back_and_not_killed(
    shop: Supervised, wait_for: Callable[..., Any], name: str
) -> None:
    """Also in a worker that is a program of the project's own."""
    if name == "worker":
        flags(shop, "concurrency = 1", "[programs.worker]\nstopwaitsecs = 4")
    else:
        own = f"command = ['{sys.executable}', '-m', 'opsq', '-A', 'proj', 'worker', '-c', '1', '-l', 'info']"
        redis = "depends_on = { redis = 'ready' }\nready = 'notify'"
        shop.toml(f"app = 'proj'\nservices = ['redis']\n[programs.jobs]\n{own}\n{redis}\nstopwaitsecs = 4")
    shop.opsq("up")
    shop.opsq("run", "task", "proj.long", "[60]")
    wait_for(lambda: marks(shop) == ["begin"], what="it runs")
    began = time.monotonic()
    shop.opsq("stop", name)
    assert time.monotonic() - began > 2.5
    [queue] = json.loads(shop.opsq("queues", "--json").stdout)["queues"]
    assert (queue["waiting"], queue["in_flight"], queue["dead"]) == (1, 0, 0)
    assert not (shop.program(name)["reason"] or "").startswith("killed")
    assert b"Cold shutdown" in shop.log(name)


def test_reload_brings_new_code_and_flags_and_interrupts_nothing(
    shop: Supervised, wait_for: Callable[..., Any]
) -> None:
    flags(shop, "concurrency = 1")
    shop.opsq("up")
    pid = shop.process("worker").pid
    assert answer(shop, "proj.version") == 1
    assert b"seen only" not in shop.log("worker")
    task = shop.opsq("run", "task", "proj.long", "[600]").stdout.strip()
    wait_for(lambda: marks(shop) == ["begin"], what="it runs")
    write(shop, 2)
    flags(shop, "concurrency = 3\nloglevel = 'debug'")
    said = shop.opsq("reload").stderr
    assert "reloaded: worker" in said
    assert shop.process("worker").pid == pid
    log = shop.log("worker").decode()
    assert "concurrency 1 -> 3" in log
    assert "log level INFO -> DEBUG" in log
    wait_for(lambda: len(children(shop)) >= 1 + 3, what="three children")
    assert answer(shop, "proj.version") == 2
    wait_for(lambda: b"seen only at the level debug" in shop.log("worker"), what="the new level holds")
    assert marks(shop) == ["begin"], "the old task still runs"
    (shop.folder / "marks.release").touch()
    wait_for(lambda: marks(shop) == ["begin", "end"], what="and ends")
    assert task in shop.log("worker").decode()


@pytest.mark.parametrize(
    ("code", "worker", "why"),
    [
        ("\ndef broken(:\n", "concurrency = 1", "(proj.py, line "),
        ("", "concurency = 4", "'concurency' is no key of [worker]"),
        ("", "concurrency = 'many'", "neither a number nor 'auto'"),
    ],
)
def test_a_reload_that_fails_says_why_and_leaves_the_old_code(
    shop: Supervised, code: str, worker: str, why: str
) -> None:
    flags(shop, "concurrency = 1", "[programs.other]\ncommand = 'sleep 1000'")
    shop.opsq("up")
    write(shop, 2, code)
    flags(shop, worker, "[programs.other]\ncommand = 'sleep 1000'")
    failed = shop.opsq("reload", code=None)
    assert failed.returncode in (1, 2)
    assert why in failed.stderr
    assert answer(shop, "proj.version") == 1 if not code else True
    assert "the old code goes on" in shop.log("worker").decode() or "was not reloaded" not in failed.stderr
