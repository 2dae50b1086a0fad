"""The dead letters of the queues: list, show, requeue, drop. Workers bury them; nothing here judges why."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from opsq.broker.broker import LUA, Broker
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.datastore.scripts import Script
from opsq.exceptions import DecodeError
from opsq.protocol import envelope, writing

REQUEUE = Script(LUA / "requeue_dead.lua")

#: Letters of one step of a long requeue: the server answers others in between.
AT_ONCE = 100
FIELDS = ("id", "task", "queue", "reason", "time", "host", "deliveries")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One letter: the queue it came from, its id there, and its record as it is stored."""

    queue: str
    id: str
    stored: bytes

    @property
    def record(self) -> dict[str, Any]:
        """What was written down about it."""
        try:
            told = json.loads(self.stored)
        except ValueError:
            told = {"reason": "its record cannot be read"}
        blank = dict.fromkeys((*FIELDS, "error", "list", "message"))
        return {**blank, **told, "id": self.id, "queue": self.queue}

    @property
    def message(self) -> bytes | None:
        """The message as it came, byte by byte; None if the record does not have it."""
        record = self.record
        text = record["message"]
        if not isinstance(text, str):
            return None
        if record.get("encoding") == "base64":
            return base64.b64decode(text)
        return text.encode()


def newest(broker: Broker, queues: Sequence[str], limit: int = 0) -> tuple[list[DeadLetter], int]:
    """The letters of these queues, newest first (0 = all), and how many there are."""
    dated: list[tuple[float, str, str]] = []
    total = 0
    with errors(broker.url):
        pipe = broker.client.pipeline(transaction=False)
        for queue in queues:
            pipe.zrevrange(broker.key(keys.dead_index(queue)), 0, limit - 1 if limit else -1, withscores=True)
            pipe.hlen(broker.key(keys.dead(queue)))
        answers = pipe.execute()
        for queue, ids, count in zip(queues, answers[::2], answers[1::2], strict=True):
            dated += ((time, queue, _text(letter)) for letter, time in ids)
            total += count
        dated.sort(reverse=True)
        return list(_read(broker, [(queue, letter) for _time, queue, letter in dated[: limit or None]])), total


def find(broker: Broker, queues: Sequence[str], letter_id: str) -> list[DeadLetter]:
    """The letters of that id, one for each queue that has it."""
    with errors(broker.url):
        return list(_read(broker, [(queue, letter_id) for queue in queues]))


def ids(broker: Broker, queue: str) -> list[str]:
    """The ids of all letters of a queue, oldest first."""
    with errors(broker.url):
        found: Any = broker.client.zrange(broker.key(keys.dead_index(queue)), 0, -1)
    return [_text(letter) for letter in found]


def read(broker: Broker, queue: str, letter_ids: Sequence[str]) -> list[DeadLetter]:
    """These letters of a queue, as far as they are still there."""
    with errors(broker.url):
        return list(_read(broker, [(queue, letter_id) for letter_id in letter_ids]))


def _read(broker: Broker, places: Sequence[tuple[str, str]]) -> Iterator[DeadLetter]:
    pipe = broker.client.pipeline(transaction=False)
    for queue, letter_id in places:
        pipe.hget(broker.key(keys.dead(queue)), _bytes(letter_id))
    for (queue, letter_id), stored in zip(places, pipe.execute() if places else (), strict=True):
        if stored is not None:
            yield DeadLetter(queue, letter_id, stored)


def requeue(broker: Broker, letters: Sequence[DeadLetter]) -> dict[DeadLetter, str]:
    """Put letters back at the end of their queues; each gets 'sent', 'gone' (somebody was quicker) or an error's text.

    A letter is in its queue or among the dead at any moment, never in both and never in none.
    """
    told: dict[DeadLetter, str] = {}
    for queue in dict.fromkeys(letter.queue for letter in letters):
        mine = [letter for letter in letters if letter.queue == queue]
        for at in range(0, len(mine), AT_ONCE):
            told.update(_requeue(broker, queue, mine[at : at + AT_ONCE]))
    return told


def _requeue(broker: Broker, queue: str, letters: Sequence[DeadLetter]) -> dict[DeadLetter, str]:
    lists = [broker.key(each) for each in broker.priorities.lists(queue)]
    told = dict.fromkeys(letters, "its message is not in the record")
    sent, arguments = [], []
    for letter in letters:
        message = letter.message
        if message is not None:
            came_from = letter.record["list"]
            place = lists.index(came_from) if came_from in lists else 0
            sent.append(letter)
            arguments += [_bytes(letter.id), letter.stored, place + 1, _as_new(message)]
    if sent:
        script_keys = [broker.key(keys.dead(queue)), broker.key(keys.dead_index(queue)), *lists]
        with errors(broker.url):
            answers = REQUEUE.run(broker.client, script_keys, arguments)
        told.update((letter, answer.decode()) for letter, answer in zip(sent, answers, strict=True))
    return told


def _as_new(message: bytes) -> bytes:
    """The message with its count of deliveries at nought; one that cannot be read as it is."""
    try:
        if not envelope.parse(message).headers.deliveries:
            return message
    except DecodeError:
        return message
    return writing.changed(writing.unparked(message), {envelope.DELIVERIES: 0})


def drop(broker: Broker, letters: Iterable[DeadLetter]) -> int:
    """Throw letters away for good; how many were there."""
    with errors(broker.url):
        pipe = broker.client.pipeline(transaction=True)
        for letter in letters:
            pipe.hdel(broker.key(keys.dead(letter.queue)), _bytes(letter.id))
            pipe.zrem(broker.key(keys.dead_index(letter.queue)), _bytes(letter.id))
        return int(sum(pipe.execute()[::2]))


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
