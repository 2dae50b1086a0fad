"""Wait until something can be read: by poll, or by select where that is all there is (eventlet takes poll away)."""

from __future__ import annotations

import select
from collections.abc import Sequence


def readable(descriptors: Sequence[int], timeout_s: float | None) -> list[int]:
    """Which of these can be read within the time (seconds, None = for ever), be it their end."""
    if not hasattr(select, "poll"):
        return select.select(descriptors, [], [], timeout_s)[0]
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [found for found, _event in poll.poll(None if timeout_s is None else max(timeout_s, 0) * 1000)]
