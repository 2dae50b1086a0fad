"""kill -9 between a result in the database and the settlement of its message, again and again."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from support.django_results import ResultsProject
from support.postgres import PostgresServer
from support.processes import Spawner
from support.proxy import TURN_SHA, ChildKiller
from support.redis_server import RedisServer

#: How often: some in every run, OPSQ_TEST_KILLS in a long one.
KILLS = int(os.environ.get("OPSQ_TEST_KILLS", "20"))
#: In a turn that settles messages whose results are in the database: it says that they are there.
SETTLES = b"celery-task-meta-"


class Killer(ChildKiller):
    """Kills the child whose turn would settle what has its results already; the turn gets nowhere."""

    def _due(self, data: bytes) -> bool:
        with self._lock:
            wanted = TURN_SHA in data and SETTLES in data and self.worker is not None and self.strikes < self.limit
            self.strikes += wanted
            return wanted


@pytest.fixture
def project(
    tmp_path: Path,
    spawn: Spawner,
    redis_url: str,
    redis_client: redis.Redis,
    wait_for: Callable[..., Any],
    postgres_server: PostgresServer,
) -> Iterator[ResultsProject]:
    made = ResultsProject(tmp_path / "project", spawn, redis_url, redis_client, wait_for).write()
    with postgres_server.database() as database:
        made.database = database
        made.manage("migrate", "-v", "0")
        yield made


@pytest.fixture
def killer(redis_server: RedisServer) -> Iterator[Killer]:
    proxy = Killer(redis_server.port, limit=KILLS)
    yield proxy
    proxy.close()


def test_no_result_is_lost_and_nothing_runs_twice(project: ResultsProject, killer: Killer) -> None:
    numbers = range(4 * KILLS)
    kinds = {"late": "late", "early": "worded"}
    ids = project.ask(f"""
answer = {{"late": [late.delay(number).id for number in {list(numbers)}],
          "early": [worded.delay(f"w{{number}}").id for number in {list(numbers)}]}}
""")
    project.more["OPSQ_BROKER_URL"] = project.url.replace(f":{killer.server_port}/", f":{killer.port}/")
    worker = project.worker("-c", "4", "--prefetch-multiplier", "2", ready=False)
    killer.worker = worker

    def settled() -> bool:
        inflight = sum(project.client.hlen(key) for key in project.client.scan_iter("opsq:inflight:*"))
        return not inflight and not project.client.llen("celery")

    project.wait_for(settled, 120, f"all are settled: {worker.report()}")
    assert killer.strikes == KILLS
    rows = {row["task_id"]: row for row in project.rows()}
    assert set(kinds) == set(ids)
    for number in numbers:
        late, early = rows[ids["late"][number]], rows[ids["early"][number]]
        assert (late["status"], json.loads(late["result"])) == ("SUCCESS", number)
        assert (early["status"], json.loads(early["result"])) == ("SUCCESS", f"w{number}")
    assert Counter(project.marks()).most_common(1)[0][1] == 1
    assert len(project.marks()) == 2 * len(numbers)
    assert not project.client.exists("opsq:dead:{celery}")
