"""What is told of tasks as events, in Celery's words: by the child that runs them, by the parent of lost ones.

Nothing is built while nobody wants it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from opsq import states
from opsq.events.dispatcher import TaskEvents
from opsq.events.event import Channels, Wrapper
from opsq.exceptions import Reject, Terminated
from opsq.execution.outcome import Outcome
from opsq.execution.plan import Plan
from opsq.protocol.envelope import Envelope
from opsq.worker import slots
from opsq.worker.lines import short_repr, short_result
from opsq.worker.slots import Slots

#: When events of tasks are sent.
AUTOMATIC, ALWAYS, NEVER = "automatic", "always", "never"


@dataclass(frozen=True, slots=True)
class News:
    """What a worker tells of itself and its tasks, and where.

    `tasks`: AUTOMATIC (when somebody listens), ALWAYS or NEVER; `interval_s`: between two signs of life, 0 = none;
    `mailbox`: the exchange on which commands to workers come; `mingles`: Celery's workers are asked what is revoked.
    """

    channels: Channels
    exchange: str
    mailbox: str
    tasks: str = AUTOMATIC
    interval_s: float = 2.0
    mingles: bool = True

    def channel(self, routing_key: str) -> str:
        """The channel of events with a routing key."""
        return self.channels.name(self.exchange, routing_key)


class Herald:
    """The events of tasks in one process."""

    def __init__(self, table: Slots, hostname: str, exchange: str) -> None:
        """`hostname`: the worker's node name."""
        self._page = table.words
        self.events = TaskEvents(Wrapper(hostname, exchange), hostname, self._read_clock, self._write_clock)
        self.take: Callable[[], bytes | None] = self.events.take
        #: Whether somebody wants to know; read anew before each batch.
        self.on = False

    def look(self) -> bool:
        """Whether events are wanted now."""
        self.on = bool(self._page[slots.EVENTS])
        if self.on:
            self.events.tick()
        return self.on

    def began(self, message: Envelope, plan: Plan | None) -> None:
        """A task begins to run."""
        if plan is not None and plan.send_events:
            self.events.began(message)

    def ended(self, message: Envelope, plan: Plan | None, outcome: Outcome) -> None:
        """A task has ended, or cannot be run."""
        if plan is not None and not plan.send_events:
            return
        task_id, state, value, events = message.headers.id, outcome.state, outcome.value, self.events
        if state == states.SUCCESS:
            events.succeeded(task_id, short_result(value, plan), outcome.runtime_s)
        elif state == states.FAILURE:
            events.failed(task_id, short_repr(value), outcome.traceback)
            if isinstance(value, Reject):
                events.rejected(task_id, False)
        elif state == states.RETRY:
            events.retried(task_id, short_repr(value.exc), outcome.traceback)
        elif state == states.REJECTED:
            events.rejected(task_id, True)
        elif state == states.REVOKED:
            signum = value.args[0] if isinstance(value, Terminated) else None
            events.revoked(task_id, expired=value.args == ("expired",), signum=signum)

    def lost(self, message: Envelope, error: BaseException) -> None:
        """A task was killed, or its process was lost."""
        if isinstance(error, Terminated):
            self.events.revoked(message.headers.id, expired=False, signum=error.args[0])
            return
        self.events.failed(message.headers.id, short_repr(error), None)

    def _read_clock(self) -> int:
        return int(self._page[slots.CLOCK])

    def _write_clock(self, value: int) -> None:
        self._page[slots.CLOCK] = value
