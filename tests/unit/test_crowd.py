"""How long waiters that are woken in vain leave what comes to others."""

from __future__ import annotations

import pytest

from opsq.worker import slots
from opsq.worker.crowd import Crowd


def longest(workers: int) -> float:
    """The longest of many delays of a waiter that is always woken in vain."""
    page = [0] * 64
    page[slots.CROWD] = workers
    crowd = Crowd(page)
    return max(crowd.delay_s() for _ in range(500))


def test_the_first_time_and_after_work_it_looks_at_once() -> None:
    crowd = Crowd([0] * 64)
    assert crowd.delay_s() == 0.0
    assert crowd.delay_s() > 0.0
    crowd.fed()
    assert crowd.delay_s() == 0.0


@pytest.mark.parametrize(("workers", "bound_s"), [(0, 0.05), (3, 0.05), (100, 1.3), (300, 11.7), (10_000, 12.0)])
def test_the_more_wait_the_longer_it_stays_away(workers: int, bound_s: float) -> None:
    assert bound_s * 0.8 < longest(workers) <= bound_s
