"""The mover of delayed messages beside a real server: when it looks again."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from opsq.datastore import keys
from opsq.datastore.priorities import Priorities
from opsq.worker.later import PROMOTE, Later

DELAYED = keys.delayed("celery")


@pytest.fixture
def later(redis_client: redis.Redis) -> Later:
    redis_client.script_load(PROMOTE.text)
    return Later(["celery"], "", Priorities())


def put(client: redis.Redis, in_s: float) -> None:
    """A message that is due so many seconds from now, by the server's clock."""
    seconds, micros = client.time()
    client.zadd(DELAYED, {"|body": seconds * 1000 + micros / 1000 + in_s * 1000})


def look(later: Later, client: Any) -> list[object]:
    return [client.execute_command(*command) for command in later.commands(tracks=False)]


def test_what_becomes_due_while_the_answer_travels_is_moved_at_once(later: Later, redis_client: redis.Redis) -> None:
    put(redis_client, 2)
    answers = look(later, redis_client)
    assert redis_client.llen("celery") == 0
    time.sleep(2.1)
    later.take(answers)
    assert later.due_in_s == 0
    later.take(look(later, redis_client))
    assert redis_client.llen("celery") == 1
    assert later.due_in_s is None


def test_what_is_due_and_cannot_be_moved_is_not_tried_again_and_again(
    later: Later, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsq.worker.later.STUCK_S", 60)
    redis_client.set("celery", "no list", ex=60)
    put(redis_client, -5)
    later.take(look(later, redis_client))
    assert later.due_in_s is not None
    assert later.due_in_s > 0
    redis_client.delete("celery", DELAYED)
