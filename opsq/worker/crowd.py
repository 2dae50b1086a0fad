"""How long a waiter that was woken in vain leaves what comes to others, when many wait for few messages.

A push costs Redis something for each waiter that is armed, and each of them looks what has come. So whoever finds
nothing stays away for a random time that doubles each time, up to a bound that grows with the number of workers: there
is always one that is armed or about to be, and of three hundred only some are. Whoever gets work is armed at once.
"""

from __future__ import annotations

import random
from typing import Any

from opsq.worker import slots

#: The first bound, and the last one in a crowd of ten or less (seconds).
FIRST_S, FEW_S = 0.001, 0.05
#: The last bound in larger crowds: so much for each worker (seconds), but never more than so many.
EACH_S, MOST_S = 0.007, 2.0


class Crowd:
    """The manners of one waiter. `page`: of its worker, where the lease thread says how many wait for the same."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._bound_s = 0.0

    def fed(self) -> None:
        """It has got work, or was not woken for long."""
        self._bound_s = 0.0

    def delay_s(self) -> float:
        """How long it stays away now that it is woken (seconds): 0 the first time."""
        delay_s = random.uniform(0, self._bound_s)
        most_s = min(max(FEW_S, self._page[slots.CROWD] * EACH_S), MOST_S)
        self._bound_s = min(max(self._bound_s * 2, FIRST_S), most_s)
        return delay_s
