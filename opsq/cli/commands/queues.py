"""`opsq queues`: what waits in each queue; look into one, empty one, pause and resume some."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

import click

from opsq.broker import moving
from opsq.broker import queues as store
from opsq.cli.commands.queue_handover import handover
from opsq.cli.context import Context, pass_context
from opsq.cli.frame import group
from opsq.cli.output import Column, counted
from opsq.cli.params import confirm_options, confirmed, limit_option, limited
from opsq.exceptions import UsageError, did_you_mean

COLUMNS = (
    Column("name", "QUEUE", cut="start"),
    Column("waiting", "WAITING", "number"),
    Column("delayed", "DELAYED", "number"),
    Column("limited", "LIMITED", "number", rare=True),
    Column("in_flight", "IN FLIGHT", "number"),
    Column("dead", "DEAD", "number"),
    Column("oldest", "OLDEST", "seconds"),
    Column("consumers", "CONSUMERS", "number"),
    Column("paused", "PAUSED", "yes"),
)
PEEK_COLUMNS = (
    Column("id", "ID"),
    Column("task", "TASK", cut="start"),
    Column("age", "AGE", "seconds"),
    Column("retries", "RETRIES", "number", extra=True),
    Column("args", "ARGS", cut="end", extra=True),
    Column("kwargs", "KWARGS", cut="end", extra=True),
    Column("priority", "PRIORITY", "number", extra=True),
    Column("limits", "WAITS FOR LIMITS OF", cut="start", extra=True),
    Column("eta", "DUE", extra=True),
    Column("expires", "EXPIRES", "time", extra=True),
    Column("trouble", "TROUBLE", cut="end", extra=True),
)

EXAMPLES = """
opsq queues
opsq queues --json
opsq queues peek mail --limit 5
opsq queues purge mail --dry-run
opsq queues move mail slow
opsq queues pause mail
opsq -A proj queues handover --to-celery mail
"""


@group(EXAMPLES, invoke_without_command=True)
@limit_option
@click.pass_context
@pass_context
def queues(context: Context, ctx: click.Context, limit: int) -> None:
    """What waits in each queue, and for how long; who consumes it."""
    if ctx.invoked_subcommand is not None:
        return
    broker = context.broker
    names = context.queue_names()
    rows = [state.to_data() for state in store.states(broker, limited(names, limit))]
    shown = rows if context.out.json else [{**row, "priorities": _priorities(row["by_priority"])} for row in rows]
    by_priority = Column("priorities", f"PRIORITY {'/'.join(map(str, broker.priorities.steps))}", extra=True)
    context.out.table("queues", (*COLUMNS, by_priority), shown, total=len(names))


def _priorities(counts: dict[str, int]) -> str:
    """How the waiting ones are spread, where not all are of the first priority."""
    first, *others = counts.values()
    return "/".join(map(str, (first, *others))) if any(others) else ""


PEEK_EXAMPLES = """
opsq queues peek mail
opsq queues peek mail --limit 1 --json
"""


@queues.command(examples=PEEK_EXAMPLES, short_help="The next messages of a queue.")
@click.argument("queue")
@limit_option
@pass_context
def peek(context: Context, queue: str, limit: int) -> None:
    """The next messages of a queue, in the order in which they will be taken; then those that wait for their limits.

    Nothing is changed.
    """
    broker = context.broker
    state = _state(context, queue)
    total = state.depth + state.limited
    now_ms = time.time() * 1000
    rows = []
    for message in store.peek(broker, queue, limit):
        told = asdict(message)
        published_ms = told.pop("published_ms")
        told["priority"] = told.pop("step")
        told["published"] = None if published_ms is None else published_ms / 1000
        told["age"] = None if published_ms is None else max(now_ms - published_ms, 0) / 1000
        rows.append(told)
    context.out.table("messages", PEEK_COLUMNS, rows, total=total, empty=f"nothing waits in {queue}")


PURGE_EXAMPLES = """
opsq queues purge mail --dry-run
opsq queues purge mail --yes
"""


@queues.command(examples=PURGE_EXAMPLES, short_help="Throw away all that waits in a queue.")
@click.argument("queue")
@confirm_options
@pass_context
def purge(context: Context, queue: str, yes: bool, dry_run: bool) -> None:
    """Throw away all that waits in a queue, now, for later or for its limits; what runs goes on, dead letters stay."""
    broker = context.broker
    state = _state(context, queue)
    count = state.pending
    if dry_run:
        context.out.say(f"would throw away {counted(count, 'message')} of {queue}")
    elif not count:
        context.out.say(f"nothing waits in {queue}")
    elif confirmed(f"throw away {counted(count, 'message')} of {queue}?", yes):
        count = moving.purge(broker, queue)
        context.out.say(f"thrown away: {counted(count, 'message')} of {queue}")
    else:
        count = 0
    if context.out.json:
        context.out.document({"queue": queue, "purged": 0 if dry_run else count, "waiting": state.pending})


MOVE_EXAMPLES = """
opsq queues move mail slow --dry-run
opsq queues move mail slow --limit 1000 --yes
opsq queues move celery reports --task proj.report
"""


@queues.command(examples=MOVE_EXAMPLES, short_help="Put what waits in a queue into another one.")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--limit", type=click.IntRange(0), default=0, metavar="N", help="Only the next N messages (0: all).")
@click.option("--task", metavar="NAME", help="Only messages of this task.")
@confirm_options
@pass_context
def move(context: Context, source: str, target: str, limit: int, task: str | None, yes: bool, dry_run: bool) -> None:
    """Put what waits in a queue, now, for its limits or for later, into another one: in its order, with its priorities.

    What runs goes on, dead letters stay. Workers may go on taking from both: a message is always in one of them.
    """
    broker = context.broker
    _known(context, [source])
    if source == target:
        raise UsageError(f"cannot move messages from {source} to itself")
    job = moving.Move(broker, source, target, task)
    count = min(job.count(), limit or sys.maxsize)
    moved = 0
    if dry_run:
        context.out.say(f"would move {counted(count, 'message')} from {source} to {target}")
    elif count and confirmed(f"move {counted(count, 'message')} from {source} to {target}?", yes):
        moved = job.run(limit)
        context.out.say(f"moved: {counted(moved, 'message')} from {source} to {target}")
    elif not count:
        context.out.say(f"nothing to move in {source}")
    if context.out.json:
        context.out.document({"from": source, "to": target, "moved": moved, "found": count})


PAUSE_EXAMPLES = """
opsq queues pause mail
opsq queues pause mail reports
"""


@queues.command(examples=PAUSE_EXAMPLES, short_help="Have nothing more taken from queues.")
@click.argument("names", metavar="QUEUE...", nargs=-1, required=True)
@pass_context
def pause(context: Context, names: tuple[str, ...]) -> None:
    """Have nothing more taken from queues until they are resumed; what runs goes on, and so does sending."""
    _switch(context, names, paused=True)


@queues.command(examples="opsq queues resume mail", short_help="Have messages of paused queues taken again.")
@click.argument("names", metavar="QUEUE...", nargs=-1, required=True)
@pass_context
def resume(context: Context, names: tuple[str, ...]) -> None:
    """Have messages of paused queues taken again, at once."""
    _switch(context, names, paused=False)


queues.add_command(handover)


def _switch(context: Context, names: tuple[str, ...], paused: bool) -> None:
    broker = context.broker
    _known(context, names)
    for name in names:
        (store.pause if paused else store.resume)(broker, name)
    word = "paused" if paused else "resumed"
    if context.out.json:
        context.out.document({word: list(names)})
    else:
        context.out.say(f"{word}: {', '.join(names)}")


def _state(context: Context, name: str) -> store.QueueState:
    """A queue as it is now; one that was never used through opsq may hold messages of others. Raises UsageError."""
    state = store.states(context.broker, [name])[0]
    if not (state.pending or state.dead):
        _known(context, [name])
    return state


def _known(context: Context, names: Sequence[str]) -> None:
    """Raises UsageError for a queue that nobody has ever used."""
    known = context.queue_names()
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f"there are: {', '.join(known[:10])}"
            raise UsageError(f"there is no queue {name!r}", hint=hint)
