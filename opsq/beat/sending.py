"""One run of an entry becomes a task's message, with the task's own `apply_async` if it is known here."""

from __future__ import annotations

import logging
from typing import Any

from opsq.beat.entry import Entry
from opsq.beat.stores import NotOurs, Tick, TickingBroker
from opsq.datastore.trouble import ResponseError
from opsq.runtime.clock import Clock
from opsq.utils.ids import new_task_id

logger = logging.getLogger("celery.beat")

#: The header that says for which due time a run was sent (Unix seconds).
DUE_HEADER = "x-opsq-due"


class Sender:
    """Sends the runs of one app."""

    def __init__(self, app: Any, broker: TickingBroker, clock: Clock) -> None:
        self.app, self.broker, self.clock = app, broker, clock

    def send(self, entry: Entry, tick: Tick) -> None:
        """Send a run and record it; what cannot be sent is said, and its due time recorded alone.

        Raises NotOurs, BrokerError, RefusedError.
        """
        options = _options(entry, None if tick.order else tick.due_ms)
        task_id = options.pop("task_id", None) or new_task_id()
        before = dict(tick.record)
        tick.record.update(last=self.clock.now(), id=task_id, runs=before.get("runs", 0) + 1)
        tick.record.update(order=tick.order.id if tick.order else None, trouble=None)
        self.broker.current = tick
        try:
            _call(self.app, entry, task_id, options)
            if not tick.done:
                self.broker.record(tick)  # the task's own `apply_async` chose to send nothing
        except NotOurs:
            raise
        except Exception as error:
            if tick.failed is not None and not isinstance(tick.failed.__cause__, ResponseError):
                raise tick.failed from None  # the broker is away; what it refuses is the entry's own trouble
            reason = f"{type(error).__name__}: {error}"
            logger.error("Message Error: cannot send %s (%s): %s", entry.name, entry.task, reason)
            if not tick.done:
                tick.record = {**before, "trouble": reason, "order": tick.record["order"]}
                self.broker.record(tick)
            return
        finally:
            self.broker.current = None
        logger.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        logger.debug("%s sent. id->%s", entry.task, task_id)


def send_now(app: Any, entry: Entry) -> str:
    """Send an entry's task now, as no run of its schedule; the task's id. Raises what `apply_async` raises."""
    options = _options(entry, None)
    task_id = options.pop("task_id", None) or new_task_id()
    _call(app, entry, task_id, options)
    return str(task_id)


def _call(app: Any, entry: Entry, task_id: str, options: dict[str, Any]) -> None:
    args, kwargs = entry.arguments()
    task = app.tasks.get(entry.task)
    if task is not None:
        task.apply_async(args, kwargs, task_id=task_id, **options)
    else:
        app.send_task(entry.task, args, kwargs, task_id=task_id, **options)


def _options(entry: Entry, due_ms: int | None) -> dict[str, Any]:
    """Options of `apply_async`; `due_ms`: the due time that is served (Unix ms), which the message tells its task.

    The entry's name travels as a property and as a header: django-celery-beat has used both, and programs read either.
    """
    headers = {**(entry.options.get("headers") or {}), "celery_beat_task": True, "periodic_task_name": entry.name}
    if due_ms is not None:
        headers[DUE_HEADER] = due_ms / 1000
    return {"periodic_task_name": entry.name, **entry.options, "headers": headers}
