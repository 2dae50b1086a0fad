"""What remote commands work on where a worker is one process: nothing is forked, so orders are carried out at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from opsq.worker import slots
from opsq.worker.slots import Slots


class AtOnce:
    """Orders for a parent that there is not."""

    def post(self, order: Callable[[], None]) -> None:
        """Carry it out, in the thread of the command."""
        order()

    def after(self, seconds: float, order: Callable[[], None]) -> None:
        """Carry it out later."""
        later = threading.Timer(seconds, order)
        later.daemon = True
        later.start()


class OneChild:
    """The line that runs tasks in threads of this process."""

    def __init__(self, table: Slots, wake: Callable[[], None]) -> None:
        """`wake` ends its wait."""
        self._table, self._wake = table, wake

    def announce(self) -> None:
        """Its page has changed."""
        self._table.words[slots.GENERATION] += 1
        self._wake()

    def order_end(self, index: int, number: int, signum: int) -> bool:
        """Have it end a task that was revoked; False when it has an earlier order yet."""
        words = self._table.slot(index).words
        if words[slots.END_NUMBER]:
            return False
        words[slots.END_SIGNAL], words[slots.END_NUMBER] = signum, number
        self.announce()
        return True
