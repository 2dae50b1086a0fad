"""One renewal of a worker's leases: what is asked of the broker, and what the answers say.

Plain commands, no script: to a server that has slept in between, its first step into Lua costs as much as all of them
together. So the ends of the leases are reckoned here, by the server's clock as it was told last, and the server's time
comes with every answer: when the reckoning was off, the renewal is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from opsq.datastore import keys
from opsq.datastore.server_time import in_s
from opsq.worker.post import Post

#: The most who are found gone at a time, in each registry.
MOST = 100


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands at the broker. `time_s`: its clock (Unix); `held`: for each queue how many messages each of its
    consumers holds; `expired`: for each queue whose leases have run out; `gone`: workers whose leases have;
    `crowd`: how many workers there are at its best attended queue, `fewest`: at the least attended one.
    """

    time_s: float
    held: list[list[int]]
    expired: list[list[bytes]]
    gone: list[bytes]
    crowd: int
    fewest: int


class Renewal:
    """The leases of a worker's consumers on each of its queues, and its own."""

    def __init__(self, post: Post, consumers: Sequence[Sequence[int]], now_ms: int) -> None:
        """`consumers`: for each queue the slots that consume it; `now_ms`: the server's clock (Unix ms)."""
        self._sizes = [len(indexes) for indexes in consumers]
        end_ms, prefix = now_ms + int(post.lease_s * 1000), post.key_prefix
        self.commands: list[tuple[Any, ...]] = [("TIME",)]
        for name, indexes in zip(post.queues, consumers, strict=True):
            names = [f"{post.worker_id}:{index}" for index in indexes]
            self.commands += _lease(prefix + keys.consumers(name), names, now_ms, end_ms)
            self.commands += [("HLEN", prefix + keys.inflight(name, consumer)) for consumer in names]
        self.commands += _lease(prefix + keys.WORKERS, [post.worker_id], now_ms, end_ms)

    def read(self, answers: Sequence[Any]) -> Standing:
        """What the answers say; raises the first error among them."""
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        rest = iter(answers)
        time_s = in_s(next(rest))
        held, expired, waiters = [], [], []
        for size in self._sizes:
            gone, there = _read_lease(rest, size)
            expired.append(gone)
            waiters.append(there)
            held.append([next(rest) for _ in range(size)])
        gone, workers = _read_lease(rest, 1)
        crowd, fewest = min(workers, max(waiters, default=0)), min([workers, *waiters])
        return Standing(time_s, held, expired, gone, crowd, fewest)


def _lease(registry: str, names: Sequence[str], now_ms: int, end_ms: int) -> list[tuple[Any, ...]]:
    """Until when these are there, and who else is, or is no more."""
    extended = [("ZADD", registry, *[word for name in names for word in (end_ms, name)])] if names else []
    gone = ("ZRANGEBYSCORE", registry, "-inf", f"({now_ms}", "LIMIT", 0, MOST)
    return [*extended, gone, ("ZCARD", registry)]


def _read_lease(answers: Any, size: int) -> tuple[list[bytes], int]:
    """Who is no more, and how many are there."""
    if size:
        next(answers)
    return next(answers), next(answers)
