"""Each process of kombu 5.7 takes away bindings that nobody has kept alive: ours stay."""

from __future__ import annotations

import redis
from support.kombu_peer import Kombu

from opsq import App


def overdue(client: redis.Redis, *exchanges: str) -> None:
    """As if a neighbour had bound an expiring queue there, long ago."""
    client.zadd("_kombu.binding_deadlines", dict.fromkeys(exchanges, 1))


def test_the_binding_of_a_queue_that_opsq_uses_stays(redis_url: str, redis_client: redis.Redis, kombu: Kombu) -> None:
    app = App("t", broker=redis_url, set_as_current=False)
    app.send_task("t.any", queue="mail")
    redis_client.sadd("_kombu.binding.stale", "stale\x06\x16\x06\x16stale")
    overdue(redis_client, "mail", "stale")
    assert kombu.sweep(redis_url) == 2
    assert not redis_client.exists("_kombu.binding.stale"), "it does sweep"
    assert redis_client.smembers("_kombu.binding.mail") == {b"mail\x06\x16\x06\x16mail"}


def test_the_bindings_of_who_waits_for_replies_stay_as_long_as_somebody_asks(
    redis_url: str, redis_client: redis.Redis, kombu: Kombu
) -> None:
    bindings, neighbour = "_kombu.binding.reply.celery.pidbox", "o\x06\x16\x06\x16o.reply.celery.pidbox"
    redis_client.sadd(bindings, neighbour)
    overdue(redis_client, "reply.celery.pidbox")
    App("t", broker=redis_url, set_as_current=False).control.ping(timeout=0.05)
    assert kombu.sweep(redis_url) == 0
    assert redis_client.smembers(bindings) == {neighbour.encode()}
