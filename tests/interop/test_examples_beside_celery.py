"""The examples that have both Celery and opsq in them run as their pages say."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from support import documents
from support.processes import Spawner

EXAMPLES = documents.ROOT / "docs" / "examples"
OPSQ_PYTHON = Path(sys.executable)


@pytest.mark.parametrize("worker", ["celery", "opsq"])
def test_a_project_runs_under_both(
    worker: str, tmp_path: Path, spawn: Spawner, celery_python: Path, redis_url: str, wait_for: Callable[..., Any]
) -> None:
    pythons = {"celery": celery_python, "opsq": OPSQ_PYTHON}
    folder = shutil.copytree(EXAMPLES / "under-both", tmp_path / "shop")
    environment = {"BROKER_URL": redis_url, "RESULTS_URL": redis_url}
    argv = [pythons[worker], "-m", worker, "-A", "shop", "worker", "-Q", "celery,money", "-l", "info", "-c", "2"]
    running = spawn(argv, name="worker", env=environment, cwd=folder)
    clients = [spawn([python, "order.py"], name=name, env=environment, cwd=folder) for name, python in pythons.items()]
    assert [client.wait(60) for client in clients] == [0, 0], spawn.report()
    assert [client.output().splitlines()[-1] for client in clients] == ["Ada: 13", "Ada: 13"]
    assert running.output().count("billing Ada") == 2
    wait_for(lambda: "succeeded" in running.output(), what="it has told of its tasks")
    running.stop()


def test_a_celery_worker_is_replaced_while_tasks_flow(
    tmp_path: Path, spawn: Spawner, celery_python: Path, redis_url: str, redis_client: redis.Redis
) -> None:
    folder = shutil.copytree(EXAMPLES / "replace-a-worker", tmp_path / "feed")
    environment = {
        "BROKER_URL": redis_url,
        "CELERY": f"{celery_python} -m celery",
        "OPSQ": f"{OPSQ_PYTHON} -m opsq",
        "PYTHON": str(celery_python),
    }
    done = spawn([folder / "replace.sh", "400"], name="replace", env=environment, cwd=folder)
    assert done.wait(90) == 0, done.report() + (folder / "old.log").read_text()[-2000:]
    lines = [line.split() for line in (folder / "seen").read_text().splitlines()]
    assert Counter(number for number, _ in lines) == Counter(str(number) for number in range(400))
    by = [library for _, library in lines]
    assert by[0] == "celery", "Celery has begun"
    assert by[-1] == "opsq", "opsq has ended"
    assert not redis_client.exists("celery", "unacked")
