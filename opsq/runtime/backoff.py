"""Delays that grow from failure to failure, with jitter: what failed together does not return together."""

from __future__ import annotations

import random


def delay_s(failures: int, *, first_s: float = 0.5, most_s: float = 30.0, jitter: float = 0.1) -> float:
    """Seconds to wait after the n-th failure in a row: doubled each time, never much more than `most_s`."""
    grown = min(most_s, first_s * 2.0 ** min(max(failures, 1) - 1, 32))
    return grown * (1 + random.uniform(0, jitter))
