"""Finished messages as turn.lua takes them: what is written for each, and what has come of how many (tallies)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from opsq.datastore import keys

#: What has come of a message, as it is counted. `dead`: it is among the dead letters, whatever else is true;
#: `rejected`: its task gave it back (Reject with requeue); `ignored`: its task raised Ignore; empty: nothing yet.
Word = Literal["succeeded", "failed", "retried", "dead", "rejected", "revoked", "expired", "ignored", ""]

_note = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class Settlement:
    """A finished message: its queue (index), its number, and what is to be written (arguments of turn.lua).

    `word`, `task` and `runtime_s` (seconds) are counted. `tries`: how often its writes have failed.
    """

    queue: int
    number: int
    writes: tuple[Any, ...] = ()
    count: int = 0
    word: Word = ""
    task: str = ""
    runtime_s: float = 0.0
    tries: int = 0

    def noted(self) -> bytes:
        """As bytes, to be written down until it is confirmed. The task's name is in the message, and not here."""
        return _note((self.queue, self.number, self.count, self.writes, self.word, int(self.runtime_s * 1e6)))

    @classmethod
    def read(cls, note: bytes) -> Settlement:
        """From such bytes."""
        queue, number, count, writes, word, took_us = msgspec.msgpack.decode(note)
        return cls(queue, number, tuple(writes), count, word, "", took_us / 1e6)


class _Tally:
    """What has come of how many messages; `index` is its place among those of the turn, 0 = they are not counted."""

    __slots__ = ("count", "index", "numbers", "seconds")

    def __init__(self, index: int) -> None:
        self.index, self.count, self.seconds = index, 0, 0.0
        self.numbers: list[int] = []


class Tallies:
    """Makes the turn's arguments of settlements: counted together, not one by one."""

    def __init__(self, queues: Sequence[str], key_prefix: str) -> None:
        self._counts = [key_prefix + keys.stats(queue) for queue in queues]
        self._totals = [key_prefix + keys.totals(queue) for queue in queues]

    def arguments(self, settlements: Iterable[Settlement]) -> list[Any]:
        """From the number of tallies on."""
        found: dict[tuple[int, str, str], _Tally] = {}
        rest: list[Any] = []
        counted = 0
        for settlement in settlements:
            key = settlement.queue, settlement.word, settlement.task
            tally = found.get(key)
            if tally is None:
                counted += 1 if settlement.word else 0
                tally = found[key] = _Tally(counted if settlement.word else 0)
            tally.count += 1
            tally.seconds += settlement.runtime_s
            if settlement.count:
                rest += (settlement.queue + 1, settlement.number, tally.index, settlement.count, *settlement.writes)
            else:
                tally.numbers.append(settlement.number)
        told: list[Any] = [counted, keys.STATS_AGE_S, keys.TOTALS_CAP]
        groups = 0
        plain: list[Any] = []
        for (queue, word, task), tally in found.items():
            if word:
                took_us = int(tally.seconds * 1e6)
                told += (self._counts[queue], self._totals[queue], word, task, tally.count, took_us)
            if tally.numbers:
                groups += 1
                plain += (queue + 1, tally.index, len(tally.numbers), *tally.numbers)
        return [*told, groups, *plain, *rest]
