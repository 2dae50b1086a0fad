"""`opsq workers`: the workers that are alive."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from opsq.broker import workers as store
from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.cli.output import Column
from opsq.cli.params import limit_option, limited

COLUMNS = (
    Column("node", "NODE", cut="start"),
    Column("host", "HOST", cut="end", extra=True),
    Column("pid", "PID", "number"),
    Column("busy", "BUSY"),
    Column("queues", "QUEUES", cut="end"),
    Column("up", "UP", "seconds"),
    Column("processed", "DONE", "number"),
    Column("pool", "POOL", extra=True),
    Column("version", "VERSION", extra=True),
)

EXAMPLES = """
opsq workers
opsq workers --json
"""


@command(EXAMPLES)
@limit_option
@pass_context
def workers(context: Context, limit: int) -> None:
    """The opsq workers that are alive: where, for which queues, and how many tasks they run."""
    records = store.live(context.broker)
    shown = limited(records, limit)
    now = time.time()
    if not context.out.json:
        for record in shown:
            record["busy"] = _busy(record)
            record["up"] = now - record["since"] if record["since"] else None
    context.out.table(
        "workers", COLUMNS, shown, total=len(records), empty="no worker is alive here; opsq up, or opsq worker -A APP"
    )


def _busy(record: Mapping[str, Any]) -> str:
    """Tasks that run of those for which there are children now, and for how many there may be."""
    busy = store.busy(record)
    there, most = sum(child.get("most", 1) for child in record["children"]), record["concurrency"]
    return f"{busy}/{most}" if there >= (most or 0) or not there else f"{busy}/{there} of {most}"
