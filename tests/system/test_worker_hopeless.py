"""An outcome that cannot be written ends in the dead letters, and nobody waits behind it."""

from __future__ import annotations

import json

from support.worker_project import all_done

from opsq.protocol import writing


def test_a_result_that_cannot_be_stored_is_buried_and_blocks_nobody(project, redis_client, wait_for) -> None:
    """The delayed set of the queue is no sorted set, so the retry of a task has nowhere to go."""
    redis_client.set("opsq:delayed:{celery}", "in the way", ex=60)
    worker = project.worker("-c", "1")
    for number in range(20):
        task, args = ("flaky", [3]) if number == 5 else ("early", [number])
        raw = writing.build(task=f"proj.{task}", id=f"id-{number}", args=args, kwargs={}, queue="celery")
        redis_client.lpush("celery", raw)
    wait_for(lambda: len(project.effects()) == 19, what="all the others ran")
    wait_for(lambda: redis_client.hlen("opsq:dead:{celery}") == 1, what="the one is buried")
    (letter,) = (json.loads(record) for record in redis_client.hvals("opsq:dead:{celery}"))
    assert letter["id"] == "id-5"
    assert "WRONGTYPE" in letter["reason"]
    record = json.loads(redis_client.get("celery-task-meta-id-5"))
    assert (record["status"], record["result"]["exc_type"]) == ("FAILURE", "BackendStoreError"), "who waits is told"
    assert max(project.effects().values()) == 1
    redis_client.delete("opsq:delayed:{celery}")
    wait_for(lambda: all_done(redis_client))
    assert worker.stop() == 0
