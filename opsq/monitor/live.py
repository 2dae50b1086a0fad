"""The stream that tells open pages when to look again (server-sent events): no data in it, only "something changed"."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

#: Open streams at most; a browser that gets none shows a still page.
STREAMS_LIMIT = 200
#: How often a stream looks, how often it speaks at most and at least (seconds).
_LOOK_S, _CHANGE_S, _AT_LEAST_S = 0.25, 1.0, 5.0


class Streams:
    """All open streams. `changes`: a number that grows; `closing`: whether the server is about to end."""

    def __init__(self, changes: Callable[[], int], closing: Callable[[], bool]) -> None:
        self._changes, self._closing = changes, closing
        self._open = 0

    @property
    def full(self) -> bool:
        """Whether there is no room for one more."""
        return self._open >= STREAMS_LIMIT

    async def stream(self) -> AsyncIterator[bytes]:
        """What one page hears, until it or the server goes."""
        self._open += 1
        try:
            yield b"retry: 2000\n\n"
            seen, told = self._changes(), time.monotonic()
            while not self._closing():
                await asyncio.sleep(_LOOK_S)
                quiet_s, now = time.monotonic() - told, self._changes()
                if (now != seen and quiet_s >= _CHANGE_S) or quiet_s >= _AT_LEAST_S:
                    seen, told = now, time.monotonic()
                    yield b"event: change\ndata: %d\n\n" % now
        finally:
            self._open -= 1
