"""What a child says of each task at the level info, in Celery's words; written once a batch at the latest.

At a higher level nothing of it is built.
"""

from __future__ import annotations

import logging

from opsq import states
from opsq.execution.outcome import Outcome
from opsq.protocol.envelope import Envelope
from opsq.runtime.logs import Buffered

received_logger = logging.getLogger("celery.worker.strategy")
trace_logger = logging.getLogger("celery.app.trace")


class Lines:
    """The lines of one child; `on` is false when nobody wants them."""

    def __init__(self, buffer: Buffered | None = None) -> None:
        self._buffer = buffer
        self.on = True
        self.info = received_logger.isEnabledFor(logging.INFO)

    def received(self, message: Envelope) -> None:
        """A task has been taken and is about to run."""
        if self.info:
            received_logger.info("Task %s[%s] received", message.name, message.headers.id)

    def ended(self, message: Envelope, outcome: Outcome) -> None:
        """A task has ended: how, after how long, with what."""
        state = outcome.state
        if state == states.SUCCESS and not self.info:
            return
        name, task_id = message.name, message.headers.id
        if state == states.SUCCESS:
            text = _short(outcome.value)
            trace_logger.info("Task %s[%s] succeeded in %ss: %s", name, task_id, outcome.runtime_s, text)
        elif state == states.FAILURE:
            line = "Task %s[%s] raised unexpected: %r" + ("\n%s" if outcome.traceback else "%s")
            trace_logger.error(line, name, task_id, outcome.value, (outcome.traceback or "").rstrip())
            if outcome.dead:
                trace_logger.error("Task %s[%s] goes to the dead letters: %s", name, task_id, outcome.dead)
        elif state == states.RETRY:
            trace_logger.info("Task %s[%s] retry: %s", name, task_id, outcome.value)
        elif state == states.IGNORED:
            trace_logger.info("Task %s[%s] ignored", name, task_id)
        elif state == states.REJECTED:
            trace_logger.info("Task %s[%s] rejected, back to its queue", name, task_id)

    def hold(self) -> None:
        """Lines of a batch of short tasks are written in one piece (until `flush`)."""
        if self._buffer is not None:
            self._buffer.held = True

    def flush(self) -> None:
        """Write what is buffered, and from now on each line at once: what a long task prints is seen while it runs."""
        if self._buffer is not None:
            self._buffer.held = False
            self._buffer.write_out()


def _short(value: object) -> str:
    """The value as Celery shows it, cut."""
    text = repr(value)
    return text if len(text) <= 1024 else text[:1021] + "..."
