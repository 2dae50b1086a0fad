"""How long a waiter that was woken in vain leaves what comes to others, when many wait for few messages.

A push costs Redis something for each waiter that is armed, and each of them looks what has come. So whoever finds
nothing stays away for a random time that grows each time, up to a bound that grows with the number of workers: there is
always one that is armed or about to be, and of three hundred only some are. Whoever gets work is armed at once.
"""

from __future__ import annotations

import random
import time
from typing import Any

from opsq.worker import slots

#: The first bound, how often longer each next one is, and the last one where few wait (seconds).
FIRST_S, TIMES, FEW_S = 0.001, 4, 0.05
#: The last bound in larger crowds: so much for each worker (seconds), and more where they are many; never more than so
#: many. So one of them comes to look every few milliseconds, however many they are: every 7 up to a hundred workers,
#: every 20 with three hundred.
EACH_S, MANY, MOST_S = 0.013, 100, 12.0
#: Who was not woken for so long does not stay away longer than where few wait (seconds).
CALM_S = 1.0


class Crowd:
    """The manners of one waiter. `page`: of its worker, where the lease thread says how many wait for the same."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._bound_s = self._armed_at = 0.0

    def fed(self) -> None:
        """It has got work, or was not woken for long."""
        self._bound_s = 0.0

    def delay_s(self) -> float:
        """How long it stays away now that it is woken (seconds): 0 the first time."""
        now = time.monotonic()
        if now - self._armed_at > CALM_S:
            self._bound_s = min(self._bound_s, FEW_S)
        delay_s = random.uniform(0, self._bound_s)
        self._armed_at = now + delay_s
        workers = self._page[slots.CROWD]
        most_s = min(max(FEW_S, workers * EACH_S * max(1.0, workers / MANY)), MOST_S)
        self._bound_s = min(max(self._bound_s * TIMES, FIRST_S), most_s)
        return delay_s
