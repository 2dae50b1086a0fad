"""How far a running task is, as it says itself: the state PROGRESS with `current`, `total` and `note`, as Celery's
users write it by hand. Told some times a second at most, and never at the cost of the task.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sized
from time import monotonic
from typing import Any, TypeVar

from opsq.exceptions import BrokerError, RefusedError
from opsq.execution.context import Context

logger = logging.getLogger("opsq.task")
Item = TypeVar("Item")

#: The state's name.
PROGRESS = "PROGRESS"
#: The least time between two that are stored (seconds).
EVERY_S = 0.2
#: Where a request notes when it last told how far it is (monotonic seconds).
_TOLD_AT = "progress_told_at"


def tell(task: Any, request: Context, done: float, total: float | None, note: str | None) -> None:
    """Store how far the run of this request is, unless that was done a moment ago; its end is always stored.

    Nothing is stored outside of a worker, and where nobody wants the result: nothing would ever take it away.
    """
    known = request.at_hand()
    if known.get("called_directly", True) or known.get("is_eager"):
        return
    said = request.ignore_result
    if task.ignore_result if said is None else said:
        return
    now = monotonic()
    if now - known.get(_TOLD_AT, 0.0) < EVERY_S and not (total is not None and done >= total):
        return
    known[_TOLD_AT] = now
    try:
        task.backend.store(request.id, PROGRESS, {"current": done, "total": total, "note": note}, request=request)
    except (BrokerError, RefusedError) as error:
        logger.debug("cannot store how far %s is: %s", request.id, error)


def track(task: Any, request: Context, items: Iterable[Item], total: float | None, note: str | None) -> Iterator[Item]:
    """The items, one after the other; after each, how many are done is told."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    tell(task, request, 0, total, note)
    for done, item in enumerate(items, 1):
        yield item
        tell(task, request, done, total, note)
