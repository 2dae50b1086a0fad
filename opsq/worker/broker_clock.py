"""The broker's time, as its answers tell it to the worker: children go by it where this host's clock is wrong."""

from __future__ import annotations

import logging
import time

from opsq._state import CLOCK_TOLERANCE_S, set_broker_epoch
from opsq.worker import slots
from opsq.worker.slots import Slots

#: What was reckoned may be so far from the broker's clock (seconds).
OFF_S = 0.05

logger = logging.getLogger("opsq.worker")


class BrokerClock:
    """Keeps on the page for the children when the monotonic clock was zero by the broker's clock (Unix ms)."""

    def __init__(self, table: Slots) -> None:
        self._table, self._is_wrong = table, False
        self._ahead_s = 0.0

    def reckoned_ms(self, at: float) -> int:
        """The broker's clock (Unix ms) at a moment of the monotonic one; not behind it, if the broker's goes evenly."""
        return int((at + self._ahead_s) * 1000)

    def told(self, sent: float, server_s: float) -> bool:
        """The broker's clock was at `server_s` (Unix) at some moment since `sent` (monotonic): tell the children.

        False when `reckoned_ms` was off: the broker's clock has leapt.
        """
        least, most = server_s - time.monotonic(), server_s - sent
        was_right = least - OFF_S <= self._ahead_s <= most + OFF_S
        if not least <= self._ahead_s <= most:
            self._ahead_s = most
        self._tell(least - CLOCK_TOLERANCE_S, most + CLOCK_TOLERANCE_S)
        return was_right

    def _tell(self, low: float, high: float) -> None:
        words, own = self._table.words, time.time() - time.monotonic()
        epoch = words[slots.BROKER_EPOCH_MS] / 1000
        if not low <= epoch <= high:
            epoch = own if low <= own <= high else (low + high) / 2
            words[slots.BROKER_EPOCH_MS] = round(epoch * 1000)
            words[slots.GENERATION] += 1
            set_broker_epoch(words[slots.BROKER_EPOCH_MS] / 1000)  # exactly as the children have it
        ahead = own - epoch
        wrong = abs(ahead) > CLOCK_TOLERANCE_S
        if wrong and not self._is_wrong:
            told = "the clock of this host is %.1f s %s the broker's: what is due goes by the broker's"
            logger.warning(told, abs(ahead), "ahead of" if ahead > 0 else "behind")
        self._is_wrong = wrong
