"""The table of `opsq tasks --profile`: how long the runs of each task took, and what they cost."""

from __future__ import annotations

from opsq.broker import profile, queues
from opsq.cli.context import Context
from opsq.cli.output import Column, size
from opsq.cli.params import limited
from opsq.datastore import keys

COLUMNS = (
    Column("task", "TASK", cut="start"),
    Column("runs", "RUNS", "number"),
    Column("p50", "P50", "seconds"),
    Column("p99", "P99", "seconds"),
    Column("cpu", "CPU/RUN", "seconds"),
    Column("growth", "GROWTH/RUN", "number"),
)


def show(context: Context, limit: int) -> None:
    """Tasks by the CPU time that they took together; as JSON durations are in seconds, growth in bytes."""
    found = profile.read(context.broker, queues.known(context.broker))
    rows = [
        {
            "task": each.task,
            "runs": each.runs,
            "p50": each.p50_s,
            "p99": each.p99_s,
            "cpu": each.cpu_s,
            "growth": each.growth,
        }
        for each in limited(found, limit)
    ]
    if not context.out.json:
        for row, each in zip(rows, found, strict=False):
            row["growth"] = size(each.growth)
    context.out.table(
        "profile", COLUMNS, rows, total=len(found), empty=f"no task has run in the last {keys.PROFILE_DAYS} days"
    )
