"""`opsq tasks revoke`: tasks that are not to run, by id, by name or by queue; with --terminate also those that run."""

from __future__ import annotations

from collections.abc import Sequence

import click

from opsq.broker.pending import pending
from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.cli.output import counted
from opsq.cli.params import confirm_options, confirmed, named_signal
from opsq.datastore import keys
from opsq.exceptions import UsageError

EXAMPLES = """
opsq tasks revoke 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11
opsq tasks revoke --name proj.tasks.mail --dry-run
opsq tasks revoke --queue mail --yes
opsq tasks revoke --name proj.tasks.report --terminate
"""

#: Ids of one command to workers.
_AT_ONCE = 1_000
#: How long replies to an order to terminate are waited for (seconds).
_REPLIES_S = 1.0


@command(EXAMPLES, short_help="Have tasks not run; end those that run.")
@click.argument("task_ids", metavar="[ID]...", nargs=-1)
@click.option("--name", metavar="TASK", help="All of this task that have not ended.")
@click.option("-Q", "--queue", metavar="QUEUE", help="All of this queue (with --name: of that task in it).")
@click.option("--terminate", is_flag=True, help="Also end those that run.")
@click.option(
    "--signal", "signal_name", default="TERM", metavar="NAME", help="For --terminate; USR1 interrupts softly."
)
@confirm_options
@pass_context
def revoke(
    context: Context,
    task_ids: Sequence[str],
    name: str | None,
    queue: str | None,
    terminate: bool,
    signal_name: str,
    yes: bool,
    dry_run: bool,
) -> None:
    """Have tasks not run: waiting, for later, waiting for a limit; with --terminate also those that run.

    They end as REVOKED when a worker meets them, also one that is down now. Celery's workers are told too.
    """
    running = 0
    named_signal(signal_name)
    if task_ids:
        if name or queue:
            raise UsageError("cannot revoke by ids and by name or queue at once")
        ids = list(dict.fromkeys(task_ids))
    elif name or queue:
        ids, running = _found(context, name, queue, terminate)
    else:
        raise UsageError("say which tasks are meant", hint="name their ids, or --name TASK, or --queue QUEUE")
    left_out, ids = max(len(ids) - keys.REVOKED_CAP, 0), ids[: keys.REVOKED_CAP]
    revoked, ended = 0, 0
    if dry_run:
        context.out.say(f"would revoke {counted(len(ids), 'task')}")
    elif not ids or confirmed(f"revoke {counted(len(ids), 'task')}?", yes):
        ended = _revoke(context, ids, terminate, signal_name)
        revoked = len(ids)
        context.out.say(f"revoked: {counted(revoked, 'task')}" + (f"; ended: {ended}" if terminate else ""))
    if running and not terminate:
        context.out.say(f"{counted(running, 'task')} may be running; --terminate ends those too")
    if left_out:
        context.out.say(
            f"{counted(left_out, 'task')} more: {keys.REVOKED_CAP:,} are remembered; repeat this when those have gone"
        )
    if context.out.json:
        told = {"chosen": len(ids), "revoked": revoked, "terminated": ended, "in_flight": running, "left_out": left_out}
        context.out.document(told)


def _found(context: Context, name: str | None, queue: str | None, terminate: bool) -> tuple[list[str], int]:
    """The ids of tasks that have not ended, and how many of those in workers' hands are not among them."""
    names = context.queue_names(queue)
    meant = [each for each in pending(context.broker, names) if name in (None, each.task)]
    in_flight = {each.id for each in meant if each.kind == "in flight"}
    waiting = [each.id for each in meant if each.kind != "in flight"]
    ids = list(dict.fromkeys([*waiting, *(in_flight if terminate else ())]))
    return ids, len(in_flight - {*ids})


def _revoke(context: Context, ids: Sequence[str], terminate: bool, signal_name: str) -> int:
    """How many were ended."""
    control = context.app.control
    ended: set[str] = set()
    for part in (ids[at : at + _AT_ONCE] for at in range(0, len(ids), _AT_ONCE)):
        if not terminate:
            control.revoke(list(part))
            continue
        order = {"signal": signal_name, "reply": True, "timeout": _REPLIES_S}
        for replies in control.terminate(list(part), **order) or ():
            for reply in replies.values():
                said = str(reply.get("ok") or reply.get("error") or "")
                if "error" in reply:
                    raise UsageError("a worker could not end them", why=said)
                ended |= {*part} & {*said.removeprefix("terminate: ").split(", ")}
    return len(ended)
