"""What a child says of each task at the level info, in Celery's words; written once a batch at the latest.

At a higher level nothing of it is built.
"""

from __future__ import annotations

import logging

from opsq import states
from opsq.exceptions import Reject
from opsq.execution.outcome import Outcome
from opsq.execution.plan import Plan
from opsq.protocol.envelope import Envelope
from opsq.runtime.logs import Buffered, StreamToLog

received_logger = logging.getLogger("celery.worker.strategy")
trace_logger = logging.getLogger("celery.app.trace")

#: Longer texts of values are cut (characters).
LONGEST = 1024


class Lines:
    """The lines of one child; `info` is false when nobody wants those of tasks that go well."""

    def __init__(self, buffer: Buffered | None = None, prints: StreamToLog | None = None) -> None:
        """`prints`: where tasks print to."""
        self._buffer, self.prints = buffer, prints
        self.info = received_logger.isEnabledFor(logging.INFO)

    def received(self, message: Envelope) -> None:
        """A task has been taken and is about to run."""
        received_logger.info("Task %s[%s] received", message.name, message.headers.id)

    def ended(self, message: Envelope, plan: Plan | None, outcome: Outcome) -> None:
        """A task has ended: how, after how long, with what."""
        if self.prints is not None and self.prints.pending:
            self.prints.flush()
        state = outcome.state
        if state == states.SUCCESS and not self.info:
            return
        name, task_id = message.name, message.headers.id
        if state == states.SUCCESS:
            text = short_result(outcome.value, plan)
            trace_logger.info("Task %s[%s] succeeded in %ss: %s", name, task_id, outcome.runtime_s, text)
        elif state == states.FAILURE:
            self._failed(name, task_id, outcome)
        elif state == states.RETRY:
            trace_logger.info("Task %s[%s] retry: %s", name, task_id, outcome.value, extra=_whose(name, task_id))
        elif state == states.REVOKED:
            trace_logger.info("Task %s[%s] was terminated (%s)", name, task_id, outcome.value)
        elif state == states.IGNORED:
            trace_logger.info("Task %s[%s] ignored", name, task_id)
        elif state == states.REJECTED:
            trace_logger.info("Task %s[%s] %s", name, task_id, outcome.value)

    @staticmethod
    def _failed(name: str, task_id: str, outcome: Outcome) -> None:
        whose = _whose(name, task_id)
        if isinstance(outcome.value, Reject):
            trace_logger.info("Task %s[%s] %s", name, task_id, outcome.value, extra=whose)
        elif outcome.expected:
            trace_logger.info("Task %s[%s] raised expected: %r", name, task_id, outcome.value, extra=whose)
        else:
            line = "Task %s[%s] raised unexpected: %r" + ("\n%s" if outcome.traceback else "%s")
            trace_logger.error(line, name, task_id, outcome.value, (outcome.traceback or "").rstrip(), extra=whose)
        if outcome.dead:
            trace_logger.error("Task %s[%s] goes to the dead letters: %s", name, task_id, outcome.dead, extra=whose)

    def hold(self) -> None:
        """Lines of a batch of short tasks are written in one piece (until `flush`)."""
        if self._buffer is not None:
            self._buffer.held = True

    def flush(self) -> None:
        """Write what is buffered, and from now on each line at once: what a long task prints is seen while it runs."""
        if self._buffer is not None:
            self._buffer.held = False
            self._buffer.write_out()


def _whose(name: str, task_id: str) -> dict[str, str]:
    """Of which task a line is, for handlers: it has ended, and nothing else says so any more."""
    return {"task_name": name, "task_id": task_id}


def short_result(value: object, plan: Plan | None) -> str:
    """What a task returned as Celery shows it, cut where the task says."""
    return short_repr(value, LONGEST if plan is None else plan.task.resultrepr_maxsize)


def short_repr(value: object, longest: int | None = LONGEST) -> str:
    """The value as Celery shows it, cut."""
    try:
        text = repr(value)
    except Exception as error:  # a task's value may have any code in its __repr__
        return f"<{type(value).__name__}: its repr failed: {type(error).__name__}>"
    return text if longest is None or len(text) <= longest else text[: max(longest - 3, 0)] + "..."
