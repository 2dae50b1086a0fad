"""A child's ledger: how a run ended is written down until the broker has confirmed it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from opsq.broker.consumer import Consumer
from opsq.broker.settlement import Settlement
from opsq.datastore import keys
from opsq.datastore.trouble import RedisConnectionError, ResponseError
from opsq.worker.ledger import Ledger
from opsq.worker.settle import Results, Settler
from opsq.worker.slots import Facts, Slot, Slots

NAME = "w@h:0badcafe:0"


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[Slot]:
    table = Slots.create(tmp_path / "x.slots", Facts("w@h:0badcafe", ["celery"], "", [1]))
    yield table.slot(0)
    table.let_go()


@pytest.fixture
def ledger(redis_url: str, redis_client: redis.Redis, slot: Slot) -> Iterator[Ledger]:
    redis_client.zadd(keys.consumers("celery"), {NAME: 9e15})
    ledger = Ledger(Consumer(redis_url, ["celery"], NAME), Settler(["celery"], Results()), slot)
    ledger.reconnect()
    yield ledger
    ledger.consumer.close()


def test_an_end_is_noted_until_its_turn_is_answered(ledger: Ledger, slot: Slot, redis_client: redis.Redis) -> None:
    redis_client.lpush("celery", b"a", b"b")
    ledger.send(2)
    ledger.receive()
    first, second = list(ledger.waiting)
    ledger.settle_run(Settlement(0, first.number))
    assert [Settlement.read(note).number for note in slot.notes()] == [first.number]
    ledger.send(0)
    ledger.settle_run(Settlement(0, second.number))
    assert {Settlement.read(note).number for note in slot.notes()} == {first.number, second.number}
    ledger.receive()
    assert [Settlement.read(note).number for note in slot.notes()] == [second.number]
    ledger.send(0)
    ledger.receive()
    assert list(slot.notes()) == []
    assert redis_client.exists(ledger.consumer.stores[0]) == 0


def test_what_is_taken_away_from_it_is_not_run(ledger: Ledger, redis_client: redis.Redis) -> None:
    redis_client.lpush("celery", b"a", b"b")
    ledger.send(2)
    ledger.receive()
    gone, kept = list(ledger.waiting)
    redis_client.hdel(ledger.consumer.stores[0], str(gone.number))
    ledger.compare()
    assert [held.number for held in ledger.waiting] == [kept.number]
    assert not ledger.doubt


def test_after_each_connect_the_store_is_read_before_anything_else_is_done(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    redis_client.lpush("celery", b"known", b"taken over")
    ledger.send(2)
    ledger.receive()
    known, taken_over = list(ledger.waiting)
    redis_client.hdel(ledger.consumer.stores[0], str(taken_over.number))
    redis_client.hset(ledger.consumer.stores[0], "777", b"its answer was lost")
    ledger.reconnect()
    assert [held.number for held in ledger.waiting] == [known.number]
    assert redis_client.lrange("celery", 0, -1) == [b"its answer was lost"]
    assert redis_client.hkeys(ledger.consumer.stores[0]) == [str(known.number).encode()]


def test_the_answer_to_a_turn_that_was_refused_is_not_waited_for_again(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    redis_client.lpush("celery", b"a")
    redis_client.set("celery\x06\x163", "no list")
    ledger.send(1)
    ledger.receive()
    ledger.send(1)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        ledger.receive()
    redis_client.delete("celery\x06\x163")
    begin = time.monotonic()
    with pytest.raises(RedisConnectionError, match="an answer went missing"):
        ledger.receive()
    ledger.compare()
    assert time.monotonic() - begin < 1
    assert [held.raw for held in ledger.waiting] == [b"a"]
    ledger.return_waiting()
    ledger.send(0)
    ledger.receive()
