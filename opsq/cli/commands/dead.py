"""`opsq dead`: messages that failed for good; `show`, `requeue` and `drop` them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import click

from opsq.broker import deadletters as store
from opsq.broker.deadletters import DeadLetter
from opsq.cli.context import Context, pass_context
from opsq.cli.frame import group
from opsq.cli.output import Column, local_time
from opsq.cli.params import confirm_options, confirmed, limit_option, limited
from opsq.exceptions import OpsqError, UsageError

COLUMNS = (
    Column("id", "ID"),
    Column("task", "TASK", cut="start"),
    Column("queue", "QUEUE", cut="start"),
    Column("reason", "REASON", cut="end"),
    Column("time", "TIME", "time", extra=True),
    Column("deliveries", "GIVEN BACK", "number", extra=True, rare=True),
    Column("host", "HOST", extra=True),
)

EXAMPLES = """
opsq dead
opsq dead show 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11
opsq dead requeue --task 'mail.*'
opsq dead drop 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11
"""


_task_option = click.option("--task", metavar="GLOB", help="All of these tasks: a name, or mail.*.")


@group(EXAMPLES, invoke_without_command=True)
@click.option("-Q", "--queue", metavar="QUEUE", help="Only those of this queue.")
@_task_option
@limit_option
@click.pass_context
@pass_context
def dead(context: Context, ctx: click.Context, queue: str | None, task: str | None, limit: int) -> None:
    """Messages that failed for good, newest first: why, and when."""
    if ctx.invoked_subcommand is not None:
        return
    letters, total = store.newest(context.broker, context.queue_names(queue), 0 if task else limit)
    if task:
        letters = _of_task(letters, task)
        letters, total = list(limited(letters, limit)), len(letters)
    rows = [{name: record[name] for name in store.FIELDS} for record in (letter.record for letter in letters)]
    context.out.table("dead", COLUMNS, rows, total=total, empty="no dead letters")


SHOW_EXAMPLES = """
opsq dead show 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11
opsq dead show 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11 --json
"""


@dead.command(examples=SHOW_EXAMPLES, short_help="All that is known of one.")
@click.argument("letter_id", metavar="ID")
@click.option("-Q", "--queue", metavar="QUEUE", help="The one in this queue.")
@pass_context
def show(context: Context, letter_id: str, queue: str | None) -> None:
    """Everything that is known of a dead letter, its message among it."""
    for letter in _find(context, [letter_id], queue):
        record = letter.record
        if context.out.json:
            context.out.document(record)
            continue
        error = record.pop("error")
        if record["time"]:
            record["time"] = local_time(record["time"])
        context.out.facts((name, value) for name, value in record.items() if name != "encoding")
        if error:
            context.out.block(error)


REQUEUE_EXAMPLES = """
opsq dead requeue 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11
opsq dead requeue --all
opsq dead requeue --task mail.send
opsq dead requeue --task 'mail.*' --queue mail
"""


@dead.command(examples=REQUEUE_EXAMPLES, short_help="Put them back into their queues.")
@click.argument("letter_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them (with --queue: all of that queue).")
@click.option("-Q", "--queue", metavar="QUEUE", help="Only those of this queue.")
@_task_option
@pass_context
def requeue(context: Context, letter_ids: Sequence[str], everything: bool, queue: str | None, task: str | None) -> None:
    """Put messages back at the end of their queues, with their count of deliveries at nought."""
    sent, left = 0, []
    for letters in _chosen(context, letter_ids, everything, queue, task):
        told = store.requeue(context.broker, letters)
        sent += sum(answer == "sent" for answer in told.values())
        left += [(letter, answer) for letter, answer in told.items() if answer not in ("sent", "gone")]
    if context.out.json:
        context.out.document({"requeued": sent, "left": [letter.id for letter, _ in left]})
    context.out.say(f"requeued: {_letters(sent)}")
    if left:
        first, answer = left[0]
        what = f"cannot requeue {first.id}" + (f" and {len(left) - 1} more" if len(left) > 1 else "")
        raise OpsqError(what, why=answer, hint=f"they stay dead letters: opsq dead show {first.id}")


DROP_EXAMPLES = """
opsq dead drop 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11 --yes
opsq dead drop --all --queue mail --dry-run
opsq dead drop --task 'mail.*' --dry-run
"""


@dead.command(examples=DROP_EXAMPLES)
@click.argument("letter_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them (with --queue: all of that queue).")
@click.option("-Q", "--queue", metavar="QUEUE", help="Only those of this queue.")
@_task_option
@confirm_options
@pass_context
def drop(
    context: Context,
    letter_ids: Sequence[str],
    everything: bool,
    queue: str | None,
    task: str | None,
    yes: bool,
    dry_run: bool,
) -> None:
    """Throw dead letters away for good."""
    chosen = _chosen(context, letter_ids, everything, queue, task)
    count = sum(len(letters) for letters in chosen)
    dropped = 0
    if dry_run:
        context.out.say(f"would drop {_letters(count)}")
    elif confirmed(f"drop {_letters(count)}?", yes):
        dropped = sum(store.drop(context.broker, letters) for letters in chosen)
        context.out.say(f"dropped: {_letters(dropped)}")
    if context.out.json:
        context.out.document({"dropped": dropped, "chosen": count})


def _letters(count: int) -> str:
    return "1 dead letter" if count == 1 else f"{count} dead letters"


def _of_task(letters: Iterable[DeadLetter], task: str | None) -> list[DeadLetter]:
    """Those whose task is meant; None = any."""
    if task is None:
        return list(letters)
    return [letter for letter in letters if fnmatchcase(str(letter.record["task"]), task)]


def _chosen(
    context: Context, letter_ids: Sequence[str], everything: bool, queue: str | None, task: str | None
) -> list[list[DeadLetter]]:
    """The letters that are meant, in parts. Raises UsageError."""
    if bool(letter_ids) == bool(everything or task):
        hint = "name their ids (opsq dead lists them), --task NAME, or --all"
        raise UsageError("say which dead letters are meant", hint=hint)
    if letter_ids:
        return [_find(context, letter_ids, queue)]
    parts = []
    for name in context.queue_names(queue):
        ids = store.ids(context.broker, name)
        parts += [
            _of_task(store.read(context.broker, name, ids[at : at + store.AT_ONCE]), task)
            for at in range(0, len(ids), store.AT_ONCE)
        ]
    return parts


def _find(context: Context, letter_ids: Sequence[str], queue: str | None) -> list[DeadLetter]:
    """The letters of these ids, each of which must be there and in one queue only."""
    names = context.queue_names(queue)
    found: list[DeadLetter] = []
    for letter_id in dict.fromkeys(letter_ids):
        here = store.find(context.broker, names, letter_id)
        if not here:
            raise UsageError(f"no dead letter has the id {letter_id}", hint="opsq dead --limit 0 lists them all")
        if len(here) > 1:
            where: list[Any] = [letter.queue for letter in here]
            raise UsageError(f"several queues have {letter_id}", hint=f"say which: --queue {' or '.join(where)}")
        found += here
    return found
