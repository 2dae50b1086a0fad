"""Whether messages wait too long for the children there are: by how long the heads of the queues have waited.

Asked by the thread of the leases, and only while all children are busy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from opsq.broker.depths import published_ms

#: A worker with `--autoscale` grows when the first message of a queue has waited longer (seconds).
TOO_LONG_S = 0.25
#: Where a first message does not say when it was sent: when its queue was never found empty for so long (seconds).
NEVER_EMPTY_S = 1.0


class Asker(Protocol):
    """The thread of the leases."""

    def submit(self, job: Callable[[], None]) -> None:
        """Do something with Redis there."""

    def ask_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """In that thread: the answers to commands."""

    def lists(self) -> list[str]:
        """The lists of all queues that are consumed."""


class Heads:
    """The first messages of a worker's queues."""

    def __init__(self, asker: Asker, post: Callable[[Callable[[], None]], None]) -> None:
        """`post`: has something done in the parent's own thread."""
        self._asker, self._post = asker, post
        self._since: dict[str, float] = {}
        self._looked_at = 0.0

    def ask(self, then: Callable[[bool], None]) -> None:
        """Find out whether one of them has waited too long, then say so in the parent's thread."""

        def job() -> None:
            lists = self._asker.lists()
            clock, *heads = self._asker.ask_all([("TIME",), *(("LINDEX", name, -1) for name in lists)])
            now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
            too_long = self._too_long(
                {name: head for name, head in zip(lists, heads, strict=True) if isinstance(head, bytes)}, now_ms
            )
            self._post(lambda: then(too_long))

        self._asker.submit(job)

    def _too_long(self, heads: Mapping[str, bytes], now_ms: int) -> bool:
        now = time.monotonic()
        known = self._since if now - self._looked_at < NEVER_EMPTY_S else {}
        self._since, self._looked_at = {name: known.get(name, now) for name in heads}, now
        for name, head in heads.items():
            sent_ms = _sent_ms(head)
            if sent_ms is not None and now_ms - sent_ms >= TOO_LONG_S * 1000:
                return True
            if sent_ms is None and now - self._since[name] >= NEVER_EMPTY_S:
                return True
        return False


def _sent_ms(raw: bytes) -> int | None:
    """When a message began to wait (Unix ms); None when it does not say, or was held back until a due time."""
    return None if b'"eta": "' in raw or b'"eta":"' in raw else published_ms(raw)
