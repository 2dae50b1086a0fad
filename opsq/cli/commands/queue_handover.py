"""`opsq queues handover`: queues go back to Celery's workers, with all that opsq keeps under keys of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from opsq.broker import queues as store
from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.exceptions import UsageError, did_you_mean

EXAMPLES = """
opsq -A proj queues handover --to-celery mail
opsq -A proj queues handover --to-celery celery mail reports
opsq -A proj queues handover --to-celery mail --dry-run
"""


@command(EXAMPLES, short_help="Give queues back to Celery's workers.")
@click.argument("names", metavar="QUEUE...", nargs=-1, required=True)
@click.option("--to-celery", is_flag=True, required=True, help="To whom: Celery's workers take from these queues.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@pass_context
def handover(context: Context, names: tuple[str, ...], to_celery: bool, dry_run: bool) -> None:  # noqa: ARG001 (it is required)
    """Give queues back to Celery's workers, when none of opsq takes from them any more.

    What is for later, waits for limits, or was in the hands of a worker that was lost goes where Celery's workers find
    it. Nothing is lost or doubled if it is cut off: call it again. Dead letters stay.
    """
    app, broker = context.app, context.broker
    app.import_tasks()
    known = context.queue_names()
    for name in names:
        if name not in known:
            raise UsageError(f"there is no queue {name!r}", hint=did_you_mean(name, known))
    before = {state.name: state for state in store.states(broker, list(dict.fromkeys(names)))}
    if dry_run:
        rows: list[dict[str, Any]] = [
            {"queue": name, "in_flight": state.in_flight, "limited": state.limited, "delayed": state.delayed}
            for name, state in before.items()
        ]
    else:
        from opsq.worker.handover import Handover

        rows = [asdict(each) for each in Handover(app, context.state_dir.slots, context.out.say).run(list(before))]
    for row in rows:
        state = store.states(broker, [row["queue"]])[0]
        row.update(waiting=state.depth, dead=state.dead, paused=state.paused)
        if not context.out.json:
            context.out.say(_sentence(row, "would be" if dry_run else "are"))
    if context.out.json:
        context.out.document({"handed_over": rows})


def _sentence(row: Mapping[str, Any], verb: str) -> str:
    told = (
        f"{row['queue']}: {row['delayed']} messages for later, {row['limited']} that waited for limits and "
        f"{row['in_flight']} from the hands of lost workers {verb} Celery's; {row['waiting']} wait now"
    )
    if row["dead"]:
        told += f"; {row['dead']} dead letters stay (opsq dead)"
    if row["paused"]:
        told += "; it is paused, which Celery's workers do not know"
    return told
