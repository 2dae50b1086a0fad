"""What every child's line has in common, however many messages it runs at once: trouble with Redis, orders of the
parent, the end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from opsq._state import set_broker_epoch
from opsq.datastore.trouble import TROUBLE, Replica, ResponseError
from opsq.exceptions import BrokerError
from opsq.runtime.backoff import delay_s
from opsq.worker import slots
from opsq.worker.ledger import Ledger
from opsq.worker.lines import Lines
from opsq.worker.memory import Growth
from opsq.worker.slots import Slot, Slots

logger = logging.getLogger("opsq.worker")
Result = TypeVar("Result")

#: How long a child that stops waits for a broker that is away, to write its outcomes (seconds).
STOP_PATIENCE_S = 5.0
#: How long a child waits at most before it asks a server again that has refused its turn (seconds).
REFUSED_MOST_S = 1.0


@dataclass(frozen=True, slots=True)
class Caps:
    """Limits of a child, 0 = none: messages in hand, tasks and memory (KiB) after which it ends; how many tasks it runs
    at once.
    """

    prefetch: int = 0
    tasks: int = 0
    memory_kib: int = 0
    at_once: int = 1


class Rest(Protocol):
    """How a child waits."""

    def pause(self, seconds: float) -> None:
        """Sleep, unless the parent wants something."""

    def let_go(self) -> None:
        """Somebody else may wait at the broker."""


class Upkeep:
    """What surrounds the work of one child."""

    def __init__(self, table: Slots, slot: Slot, ledger: Ledger, rest: Rest, lines: Lines, caps: Caps) -> None:
        self.page, self.slot = table.words, slot
        self.ledger, self._rest, self.lines, self.caps = ledger, rest, lines, caps
        #: Which tasks grow this child, if its memory is limited.
        self.growth = Growth(caps.memory_kib) if caps.memory_kib else None
        self.done = 0
        self.stopping = False
        self._generation = self._overrides = 0
        #: Called when limits of tasks were set while the worker runs.
        self.take_overrides: Callable[[], None] = lambda: None
        self._lapses = int(self.page[slots.LAPSES])
        self._refused_at = self._refused_s = 0.0

    def _may_leave(self) -> bool:
        """Whether nothing is being run."""
        return True

    def _meanwhile(self) -> float | None:
        """What is to be done also while the broker is away; seconds until it is to be done again."""
        return None

    def _end_threads(self) -> None:
        """Nothing is run any more."""

    # -- trouble ----------------------------------------------------------------------------------------------------

    def _guarded(self, step: Callable[[], Result]) -> Result | None:
        """A step with Redis; after trouble everything is in order again and the step is to be asked for anew."""
        try:
            return step()
        except TROUBLE as error:
            self._rest.let_go()
            if isinstance(error, ResponseError | Replica):
                self._hold_back()
            self._recover(str(error) or type(error).__name__, error if isinstance(error, BrokerError) else None)
            return None

    def _hold_back(self) -> None:
        """A server that answers and refuses is not asked again and again."""
        now = time.monotonic()
        again = now - self._refused_at < 3 * REFUSED_MOST_S
        self._refused_s = min(self._refused_s * 2, REFUSED_MOST_S) if again else REFUSED_MOST_S / 32
        self._refused_at = now
        self._rest.pause(self._refused_s)

    def _recover(self, reason: str, elsewhere: BrokerError | None = None) -> None:
        """Connect anew and put the ledger in order, for as long as it takes.

        `elsewhere`: it is another place that failed, that of results for instance.
        """
        failures, told, since = 0, False, time.monotonic()
        while True:
            try:
                if reason and not told:
                    if elsewhere is None:
                        logger.warning("lost the broker, reconnecting: %s", reason)
                    else:
                        hint = f" ({elsewhere.hint})" if elsewhere.hint else ""
                        logger.warning("held up, trying again: %s%s", reason, hint)
                    told = True
                with self.ledger.io:
                    self.ledger.reconnect()
                if told:
                    logger.info("going on" if elsewhere else "the broker is back")
                return
            except TROUBLE as error:
                reason = str(error) or type(error).__name__
                failures += 1
                self._rest.pause(delay_s(failures, first_s=0.05, most_s=1.0))
                self._look_at_page()
                self._meanwhile()
                patience_s = STOP_PATIENCE_S if self.ledger.owes else 0
                if self.stopping and self._may_leave() and time.monotonic() - since > patience_s:
                    logger.error("stopping without the broker; what is in flight is settled by whoever comes next")
                    raise SystemExit(1) from None

    def _await_lease(self) -> None:
        """The lease has run out: what is in hand may be somebody else's by now."""
        while time.monotonic_ns() > self.page[slots.DEADLINE_NS] and not self.stopping:
            self._rest.pause(0.05)
            self._look_at_page()
            self._meanwhile()
        self.ledger.doubt = True

    # -- orders, the end --------------------------------------------------------------------------------------------

    def _look_at_page(self) -> None:
        """What the parent tells: to stop, to leave, that the lease had run out for a while, what time it is."""
        page = self.page
        set_broker_epoch(page[slots.BROKER_EPOCH_MS] / 1000)
        self._generation = int(page[slots.GENERATION])
        if page[slots.STOPPING] or self.slot.words[slots.LEAVE]:
            self.stopping = True
        if page[slots.LAPSES] != self._lapses:
            self._lapses = int(page[slots.LAPSES])
            self.ledger.doubt = True
        if self.slot.words[slots.DOUBT]:
            self.slot.words[slots.DOUBT] = 0
            self.ledger.doubt = True
        if page[slots.OVERRIDES] != self._overrides:
            self._overrides = int(page[slots.OVERRIDES])
            self.take_overrides()
        self.slot.words[slots.SEEN] = self._generation

    def _look_at_memory(self) -> None:
        """A child that has grown too large ends."""
        if self.growth is not None and not self.stopping and self.growth.is_too_large():
            self.stopping = True

    def _finish(self) -> None:
        """Give back what is in hand, settle what is finished, and go."""
        self._rest.let_go()
        self.ledger.return_waiting()
        while not self.ledger.idle:
            self._guarded(self._settle_rest)
        self._end_threads()
        self.lines.flush()
        self._guarded(self._retire)
        self.ledger.consumer.close()

    def _retire(self) -> None:
        """Nothing is held: nobody has to settle anything for this child."""
        self.slot.words[slots.STATE] = slots.LEAVING
        if not self.ledger.consumer.retire():
            raise SystemExit(1)

    def _settle_rest(self) -> None:
        with self.ledger.io:
            if not self.ledger.awaits_answer:
                self.ledger.send(0)
            self.ledger.receive()
        self.ledger.return_waiting()
