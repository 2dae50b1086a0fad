"""`celery inspect|control` at workers of opsq, `opsq inspect|control` at Celery's: the same answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import neighbours
from support.neighbours import NODES, World


@pytest.fixture(scope="module")
def world(celery_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with neighbours.opened(tmp_path_factory.mktemp("commands"), celery_python) as world:
        yield world


def says(world: World, method: str, **arguments: Any) -> Any:
    """What both reply, which must be the same."""
    told = world.ask(method, **arguments)
    assert told["opsq"] == told["celery"]
    return told["opsq"]


def test_rate_limits(world: World) -> None:
    name = "proj.limited"
    assert says(world, "rate_limit", task_name=name, rate_limit="50/s") == {"ok": "new rate limit set successfully"}
    assert says(world, "rate_limit", task_name=name, rate_limit=0) == {"ok": "rate limit disabled successfully"}
    assert says(world, "rate_limit", task_name="proj.nobody", rate_limit="1/s") == {"error": "unknown task"}
    for told in world.ask("rate_limit", task_name=name, rate_limit="often").values():
        assert told["error"].startswith("Invalid rate limit string: ")


def test_time_limits(world: World) -> None:
    assert says(world, "time_limit", task_name="proj.nap", soft=300, hard=600) == {"ok": "time limits set successfully"}
    assert says(world, "time_limit", task_name="proj.nobody", soft=1) == {"error": "unknown task"}


def test_consumers(world: World) -> None:
    for _ in range(2):
        assert says(world, "add_consumer", queue="more") == {"ok": "add consumer more"}
    assert says(world, "cancel_consumer", queue="more") == {"ok": "no longer consuming from more"}


def test_pool(world: World) -> None:
    assert says(world, "pool_grow", n=1) == {"ok": "pool will grow"}
    assert says(world, "pool_shrink", n=1) == {"ok": "pool will shrink"}
    assert says(world, "autoscale", max=3, min=1) == {"error": "ValueError('Autoscale not enabled')"}
    assert "error" in says(world, "pool_restart")


def test_events(world: World) -> None:
    world.ask("disable_events")
    assert says(world, "disable_events") == {"ok": "task events already disabled"}
    assert says(world, "enable_events") == {"ok": "task events enabled"}


def test_hello_tells_clock_and_revocations(world: World) -> None:
    world.ask("revoke", task_id="gone-1")
    told = world.ask("hello", from_node="x@here", revoked={})
    assert set(told["opsq"]) == set(told["celery"]) == {"clock", "revoked"}
    assert all("gone-1" in each["revoked"] for each in told.values())


def run(world: World, library: str, *words: str) -> tuple[int, str]:
    """A command of one of the two programs in its project; exit code and standard output."""
    python = world.celery_python if library == "celery" else Path(sys.executable)
    folder = world.workers[library].log.parent / library
    environment = {"PROJ_BROKER": world.server.url(0), "PROJ_BACKEND": world.server.url(1)}
    name = f"{library}-{'-'.join(words)}".replace("/", "")[:60]
    argv = [python, "-W", "ignore", "-m", library, "-A", "proj", *words]
    done = world.spawn(argv, name=name, env=environment, cwd=folder)
    return done.wait(60), done.output()


@pytest.mark.parametrize("method", ["registered", "active_queues"])
def test_both_programs_ask_both_workers(world: World, method: str) -> None:
    found = {}
    for library in NODES:
        code, text = run(world, library, "inspect", method, "--json", "--timeout", "2")
        assert code == 0, text
        found[library] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert set(found["opsq"]) == set(NODES.values())
    assert found["opsq"] == found["celery"]


def test_both_programs_tell_both_workers_what_to_do(world: World) -> None:
    for library in NODES:
        code, text = run(world, library, "control", "--timeout", "2", "time_limit", "proj.nap", "300", "600")
        assert (code, text.count("time limits set successfully")) == (0, 2), text


def test_opsqs_program_shuts_a_celery_worker_down(world: World, celery_python: Path) -> None:
    environment = {"PROJ_BROKER": world.server.url(0), "PROJ_BACKEND": world.server.url(1)}
    folder = world.workers["celery"].log.parent / "celery"
    argv = [celery_python, "-m", "celery", "-A", "proj", "worker", "-l", "info", "-c", "1", "-Q", "yq", "-n", "y@here"]
    worker = world.spawn(argv, name="to-be-shut-down", env=environment, cwd=folder)
    world.until(lambda: " ready." in worker.output(), "it is ready")
    world.until(lambda: world.clients["opsq"].broadcast("ping", destination=["y@here"], timeout=0.5), "it hears")
    assert run(world, "opsq", "control", "shutdown", "-d", "y@here")[0] == 0
    worker.wait(40)
