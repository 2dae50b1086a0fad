"""The monitor beside a real Celery worker that was started without -E: it is asked for events, and all is recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from support import project
from support.processes import Spawner

from opsq.broker.broker import Broker
from opsq.monitor.collector import Collector
from opsq.monitor.store import History, Wanted

SEND = """
from celery import chain
import proj

proj.add.delay(1, 2)
proj.fail.delay("<b>")
proj.flaky.delay(1)
chain(proj.add.s(1, 1), proj.add.s(1), proj.add.s(1)).delay()
"""


def test_tasks_of_a_celery_worker_are_recorded(
    spawn: Spawner,
    tmp_path: Path,
    redis_url: str,
    redis_client: redis.Redis,
    celery_python: Path,
    wait_for: Callable[..., Any],
) -> None:
    folder = project.write(tmp_path / "celery", "celery")
    environment = {"PROJ_BROKER": redis_url, "PROJ_BACKEND": redis_url}
    history = History(Broker(redis_url))
    collector = Collector(history)
    collector.start()
    try:
        argv = [celery_python, "-m", "celery", "-A", "proj", "worker", "-c", "1", "-l", "info"]
        worker = spawn(argv, name="worker", env=environment, cwd=folder)
        wait_for(lambda: " ready." in worker.output(), 40, "the worker is ready")
        wait_for(lambda: "enabled by remote" in worker.output(), 20, "it was asked for events")
        assert spawn([celery_python, "-c", SEND], env=environment, cwd=folder).wait() == 0

        def ended() -> list[Any]:
            found = history.find(Wanted()).records
            return found if sum(not record.open for record in found) == 6 else []

        found = wait_for(ended, 20, "all six runs have ended")
        [node] = collector.nodes.all(time.time())
        assert node.alive(time.time())
        assert node.software.startswith("py-celery")
    finally:
        collector.stop()
        worker.stop()
    by_state = {record.state: record for record in found}
    assert by_state["FAILURE"].exception == "ValueError('<b>', 42)"
    assert "Traceback" in by_state["FAILURE"].traceback
    retried = next(record for record in found if record.name == "proj.flaky")
    assert (retried.state, retried.retries, len(retried.tries)) == ("SUCCESS", 1, 1)
    last = next(record for record in found if record.result == "4")
    assert [record.result for record in history.chain(last.root_id)] == ["2", "3", "4"]
    redis_client.flushdb()
