"""Finished messages as turn.lua takes them: what is written for each, and what has come of how many (tallies)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from opsq.broker.profile import Costs
from opsq.datastore import keys

#: What has come of a message, as it is counted. `dead`: it is among the dead letters, whatever else is true;
#: `rejected`: its task gave it back (Reject with requeue); `ignored`: its task raised Ignore; empty: nothing yet.
Word = Literal["succeeded", "failed", "retried", "dead", "rejected", "revoked", "expired", "ignored", ""]

_note = msgspec.msgpack.Encoder().encode


class Settlement(msgspec.Struct, gc=False):
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

    __slots__ = ("buckets", "costs", "count", "index", "numbers", "results", "seconds", "ttl_s")

    def __init__(self, index: int) -> None:
        self.index, self.count, self.seconds, self.costs = index, 0, 0.0, ""
        self.buckets: dict[int, int] = {}
        self.numbers: list[int] = []
        #: Of those of which only a result is stored: number, key, bytes of each; all for the same time.
        self.results: list[Any] = []
        self.ttl_s: int | None = None


class Tallies:
    """Makes the turn's arguments of settlements: counted together, not one by one."""

    def __init__(self, queues: Sequence[str], key_prefix: str) -> None:
        self._counts = [key_prefix + keys.stats(queue) for queue in queues]
        self._totals = [key_prefix + keys.totals(queue) for queue in queues]
        self._profiles = [key_prefix + keys.profile(queue) for queue in queues]
        self.costs = Costs()

    def arguments(self, settlements: Sequence[Settlement]) -> list[Any]:
        """From the number of tallies on."""
        found: dict[tuple[int, str, str], _Tally] = {}
        rest: list[Any] = []
        counted = 0
        queue, word, task, tally = -1, "", "", _Tally(0)
        for settlement in settlements:
            # Most are like the one before.
            if settlement.task != task or settlement.word != word or settlement.queue != queue:
                queue, word, task = key = settlement.queue, settlement.word, settlement.task
                if key in found:
                    tally = found[key]
                else:
                    counted += 1 if word else 0
                    tally = found[key] = _Tally(counted if word else 0)
            tally.count += 1
            tally.seconds += settlement.runtime_s
            if not settlement.count:
                tally.numbers.append(settlement.number)
            elif settlement.count > 1 or not _takes_result(tally, settlement):
                rest += (settlement.queue + 1, settlement.number, tally.index, settlement.count, *settlement.writes)
        if counted:
            self.costs.tell(settlements, found)
        told: list[Any] = [counted, keys.STATS_AGE_S, keys.TOTALS_CAP, keys.PROFILE_AGE_S]
        groups = result_groups = 0
        plain: list[Any] = []
        results: list[Any] = []
        for (queue, word, task), tally in found.items():
            if word:
                took_us = int(tally.seconds * 1e6)
                told += (self._counts[queue], self._totals[queue], word, task, tally.count, took_us)
                told += (self._profiles[queue], tally.costs)
            if tally.numbers:
                groups += 1
                plain += (queue + 1, tally.index, len(tally.numbers), *tally.numbers)
            if tally.results:
                result_groups += 1
                results += (queue + 1, tally.index, tally.ttl_s, len(tally.results) // 3, *tally.results)
        return [*told, groups, *plain, result_groups, *results, *rest]


def _takes_result(tally: _Tally, settlement: Settlement) -> bool:
    """Put a settlement that is a result and nothing else among those of its tally."""
    writes = settlement.writes
    if writes[0] != "R":
        return False
    if tally.ttl_s is None:
        tally.ttl_s = writes[2]
    elif tally.ttl_s != writes[2]:
        return False
    tally.results += (settlement.number, writes[1], writes[3])
    return True
