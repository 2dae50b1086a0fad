"""How a worker is asked to stop, and how long what runs may go on.

Warm: what runs may end, the rest goes back. Cold: the children are killed, and what they held is settled.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

from opsq import signals
from opsq.runtime import notify

logger = logging.getLogger("opsq.worker")

#: A second INT or TERM counts as one only after this time: Ctrl-C often comes twice (seconds).
SECOND_SIGNAL_S = 0.5
#: So much before its supervisor kills it a cold stop begins (seconds): it has to settle what it ends.
MARGIN_S = 3.0


class Stop:
    """Whether a worker is to stop: `how` is "" (no), "warm" or "cold"."""

    def __init__(self, worker: Any, environ: Mapping[str, str] = os.environ) -> None:
        self._worker = worker
        self._remapped = environ.get("REMAP_SIGTERM") == "SIGQUIT"
        self._wait_s = _seconds(environ.get(notify.STOPWAITSECS))
        self.how = ""
        self._asked_at = 0.0
        self._deadline: float | None = None

    def asked(self, number: int, soft_s: float) -> None:
        """A signal has come. `soft_s`: the setting worker_soft_shutdown_timeout, 0 = none (seconds)."""
        cold = number == signal.SIGQUIT or (number == signal.SIGTERM and self._remapped)
        now = time.monotonic()
        if self.how == "warm" and not cold and now - self._asked_at < SECOND_SIGNAL_S:
            return
        how = "cold" if self.how or (cold and not soft_s) else "warm"
        if how != self.how:
            told = {"sig": signal.Signals(number).name, "how": how.capitalize(), "exitcode": 0}
            signals.worker_shutting_down.send(self._worker.hostname, **told)
        if self.how:
            self._begin("cold")
            return
        self._asked_at = now
        limits = [limit for limit in (soft_s, self._wait_s) if limit]
        if limits:
            self._deadline = now + min(limits)
        self._begin(how)

    def _begin(self, how: str) -> None:
        if self.how != how:
            self.how = how
            logger.warning("worker: %s shutdown (MainProcess)", how.capitalize())

    def look(self) -> float | None:
        """Turn cold when the time has passed; seconds until then, None = no limit. 0 = it has passed now."""
        if self._deadline is None or self.how != "warm":
            return None
        left = self._deadline - time.monotonic()
        if left > 0:
            return left
        logger.warning("the time for stopping is over: what still runs is ended")
        self._begin("cold")
        return 0.0

    def waits_idle(self, wanted: bool) -> bool:
        """Whether the time is waited for although nothing runs (`worker_enable_soft_shutdown_on_idle`)."""
        return wanted and self.how == "warm" and self._deadline is not None


def _seconds(text: str | None) -> float:
    """How long what runs may go on before a supervisor kills; 0 = nobody says."""
    try:
        wait_s = float(text or 0)
    except ValueError:
        return 0.0
    return max(wait_s - min(MARGIN_S, wait_s / 4), 0.0)
