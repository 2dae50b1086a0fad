"""A child's line with a real broker and tasks that do to it what they like."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from opsq.broker.consumer import Consumer
from opsq.broker.settlement import Settlement
from opsq.datastore import keys
from opsq.worker import slots
from opsq.worker.batch import Held
from opsq.worker.crowd import Crowd
from opsq.worker.idle import Waiting
from opsq.worker.ledger import Ledger
from opsq.worker.lines import Lines
from opsq.worker.loop import Line
from opsq.worker.settle import Results, Settler
from opsq.worker.slots import Facts, Slots
from opsq.worker.upkeep import Caps

NAME = "w@h:0badcafe:0"


class Tasks:
    """In the place of attempts: calls what the test wants for each message, and ends it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.ran, self.failed = ledger, [], -1
        self.herald = SimpleNamespace(look=lambda: False, events=None, on=False)
        self.runner = SimpleNamespace(inside=False)
        self.gate = SimpleNamespace(look=lambda _waiting: None)
        self.on_run: Callable[[bytes], None] = lambda _raw: None

    def run(self, held: Held) -> bool:
        self.ran.append(held.raw)
        self.number = held.number
        self.on_run(held.raw)
        self.ledger.settle_run(Settlement(held.queue, held.number))
        return True


@pytest.fixture
def line(redis_url: str, redis_client: redis.Redis, tmp_path: Path) -> Iterator[Any]:
    redis_client.zadd(keys.consumers("celery"), {NAME: 9e15})
    table = Slots.create(tmp_path / "x.slots", Facts("w@h:0badcafe", ["celery"], "", [1]))
    table.words[slots.DEADLINE_NS] = 2**62
    ledger = Ledger(Consumer(redis_url, ["celery"], NAME), Settler(["celery"], Results()), table.slot(0))
    waiting, before = Waiting(tmp_path / "lock", 15.0, Crowd([0] * 64)), signal.getsignal(signal.SIGUSR1)
    waiting.install(waiting.on_signal)
    line = Line(table, table.slot(0), ledger, Tasks(ledger), waiting, Lines(None, None), lambda: None, Caps())
    yield line
    signal.signal(signal.SIGUSR1, before)
    table.let_go()


@pytest.mark.timeout(20)
def test_what_is_in_hand_after_trouble_is_run_although_nothing_more_arrives(
    line: Any, redis_client: redis.Redis
) -> None:
    def on_run(raw: bytes) -> None:
        if raw == b"first":  # the connection is lost and so, for a while, was the lease
            redis_client.client_kill_filter(_id=line.ledger.consumer.id)
            line.ledger.doubt = True
        else:
            line.page[slots.STOPPING] = 1
            line.page[slots.GENERATION] += 1

    line.attempts.on_run = on_run
    line.batch.want = 2
    redis_client.lpush("celery", b"first", b"second")
    line.run()
    assert line.attempts.ran == [b"first", b"second"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("limited", [True, False])
def test_after_two_failures_in_a_row_what_limits_had_let_through_asks_again(
    line: Any, redis_client: redis.Redis, limited: bool
) -> None:
    """So a circuit that these open holds for the rest of the batch too."""
    numbers: list[int] = []

    def on_run(_raw: bytes) -> None:
        numbers.append(line.attempts.number)
        line.attempts.failed = line.attempts.number
        if len(numbers) == 3:
            line.page[slots.STOPPING] = 1
            line.page[slots.GENERATION] += 1

    line.attempts.on_run = on_run
    line.batch.want = 5
    if limited:
        line.ledger.passed = set(range(1, 6))
    redis_client.lpush("celery", *[b'{"n": %d}' % n for n in range(5)])
    line.run()
    assert [raw.count(b'"n": %d}' % n) for n, raw in enumerate(line.attempts.ran)] == [1, 1, 1]
    assert (numbers[2] > numbers[0] + 4) == limited
