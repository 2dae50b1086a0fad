"""Task messages by the ten thousand, as Celery writes them."""

from __future__ import annotations

from opsq.protocol import writing
from opsq.utils.ids import new_task_id

LIST = "celery"
#: Where they are prepared: RENAME makes them all appear in the queue at once.
PREPARED = "bench:prepared"
_ID = "00000000-0000-4000-8000-000000000000"


def messages(count: int, payload: int) -> list[bytes]:
    """Calls of the task that does nothing, each with an id of its own and an argument of so many bytes."""
    pattern = writing.build(
        task="bench_tasks.noop", id=_ID, args=(1, "x" * payload), kwargs={}, queue=LIST, origin="bench@localhost"
    )
    return [pattern.replace(_ID.encode(), new_task_id().encode()) for _ in range(count)]


def call(task: str, *args: object, eta: str | None = None) -> bytes:
    """One call of a task of the benchmarks."""
    return writing.build(
        task=f"bench_tasks.{task}",
        id=new_task_id(),
        args=args,
        kwargs={},
        queue=LIST,
        origin="bench@localhost",
        eta=eta,
    )
