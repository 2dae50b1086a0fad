"""The broker's time, as its answers tell it to the worker: children go by it where this host's clock is wrong."""

from __future__ import annotations

import logging
import time

from opsq._state import CLOCK_TOLERANCE_S, set_broker_epoch
from opsq.worker import slots
from opsq.worker.slots import Slots

logger = logging.getLogger("opsq.worker")


class BrokerClock:
    """Keeps on the page for the children when the monotonic clock was zero by the broker's clock (Unix ms)."""

    def __init__(self, table: Slots) -> None:
        self._table, self._is_wrong = table, False

    def told(self, sent: float, server_s: float) -> None:
        """The broker's clock was at `server_s` (Unix) at some moment since `sent` (monotonic): tell the children."""
        low, high = server_s - time.monotonic() - CLOCK_TOLERANCE_S, server_s - sent + CLOCK_TOLERANCE_S
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
