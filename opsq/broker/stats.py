"""What has come of how many messages: totals by task since ever, counts by the minute. The turn alone writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opsq.broker.broker import Broker
from opsq.broker.queues import server_ms
from opsq.datastore import keys
from opsq.datastore.connection import errors

#: The most minutes that `by_minute` knows.
MOST_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Total:
    """How many messages, and how long their tasks ran together (seconds)."""

    count: int
    runtime_s: float


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of a queue: its number since the epoch, how many messages ended in each state, their time together."""

    unix_minute: int
    counts: Mapping[str, int]
    runtime_s: float


def totals(broker: Broker, queues: Sequence[str]) -> dict[tuple[str, str, str], Total]:
    """(queue, task, state) -> total; they only grow. States: succeeded, failed, retried, dead, rejected, revoked,
    expired, ignored. Tasks beyond the cap of names stand together as "(other)".
    """
    with errors(broker.url):
        pipe = broker.client.pipeline(transaction=False)
        for queue in queues:
            pipe.hgetall(broker.key(keys.totals(queue)))
        answers: Sequence[Any] = pipe.execute() if queues else ()
    found: dict[tuple[str, str, str], Total] = {}
    for queue, fields in zip(queues, answers, strict=True):
        for field, count in fields.items():
            kind, _, rest = field.partition(b":")
            if kind == b"n":
                state, _, task = rest.decode(errors="replace").partition(":")
                found[queue, task, state] = Total(int(count), int(fields.get(b"us:" + rest, 0)) / 1e6)
    return found


def by_minute(broker: Broker, queue: str, minutes: int) -> list[Minute]:
    """The last minutes of a queue, the one that runs last; also those in which nothing ended."""
    minutes = min(minutes, MOST_MINUTES)
    with errors(broker.url):
        last = server_ms(broker) // 60_000
        first = last - minutes + 1
        hours = range(first // 60, last // 60 + 1)
        pipe = broker.client.pipeline(transaction=False)
        for hour in hours:
            pipe.hgetall(f"{broker.key(keys.stats(queue))}:{hour}")
        answers = pipe.execute()
    counts: dict[int, dict[str, int]] = {minute: {} for minute in range(first, last + 1)}
    for hour, fields in zip(hours, answers, strict=True):
        for field, count in fields.items():
            within, _, state = field.decode().partition(":")
            minute = hour * 60 + int(within)
            if minute in counts:
                counts[minute][state] = int(count)
    return [Minute(minute, found, found.pop("us", 0) / 1e6) for minute, found in counts.items()]
