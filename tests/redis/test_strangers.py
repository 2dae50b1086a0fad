"""Who knows a task that is not known here: asked by many at once, and of a broker that does not answer."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import redis
from support import redis_server

from opsq.broker.consumer import Consumer
from opsq.datastore import keys
from opsq.protocol import envelope, writing
from opsq.worker.strangers import Strangers

MESSAGE = envelope.parse(writing.build(task="proj.fresh", id="i", args=(), kwargs={}, queue="celery"))
AT_ONCE = 16


def strangers(url: str) -> Strangers:
    return Strangers(Consumer(url, ["celery"], "w@h:0badcafe:0"), lambda: False)


def knows(client: redis.Redis, tasks: list[str]) -> None:
    """A live worker on the queue knows these."""
    client.zadd(keys.WORKERS, {"other@h:00000001": 9e15})
    client.set(keys.worker("other@h:00000001"), json.dumps({"queues": ["celery"], "tasks": tasks}), ex=60)


def test_messages_that_meet_in_a_pool_of_many_are_all_put_off(redis_url: str, redis_client: redis.Redis) -> None:
    knows(redis_client, ["proj.fresh", *(f"proj.other_{number}" for number in range(5000))])
    together = threading.Barrier(AT_ONCE)

    def ask(asked: Strangers) -> int | None:
        together.wait(20)
        return asked.due_ms(0, MESSAGE)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in range(5):
            assert all(pool.map(ask, [strangers(redis_url)] * AT_ONCE))


def test_what_nobody_knows_is_not_put_off(redis_url: str, redis_client: redis.Redis) -> None:
    assert strangers(redis_url).due_ms(0, MESSAGE) is None
    knows(redis_client, ["proj.old"])
    assert strangers(redis_url).due_ms(0, MESSAGE) is None


def test_while_nobody_can_be_asked_a_message_is_put_off() -> None:
    url = f"redis://127.0.0.1:{redis_server.free_port()}/0"
    assert strangers(url).due_ms(0, MESSAGE) is not None
