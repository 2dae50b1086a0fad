"""Celery's words for what other commands of opsq do too, with Celery's flags and output: call, purge, list, report."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command, group
from opsq.cli.params import Json, confirm_options, confirmed, names
from opsq.exceptions import UsageError

CALL_EXAMPLES = """
opsq -A proj call proj.tasks.add -a '[2, 3]'
opsq -A proj call proj.tasks.mail -k '{"to": "anna"}' --queue mail
opsq -A proj call proj.tasks.close --eta 2027-01-01T00:00:00+00:00
opsq -A proj call proj.tasks.close --countdown 60 --expires 3600
"""
PURGE_EXAMPLES = """
opsq -A proj purge
opsq -A proj purge -Q mail,slow -f
opsq -A proj purge -X celery --dry-run
"""
LIST_EXAMPLES = """
opsq -A proj list bindings
"""
KWARGS = """'{"a": 1}'"""
REPORT_EXAMPLES = """
opsq -A proj report
opsq inspect report
"""


class _Moment(click.ParamType):  # type: ignore[type-arg]
    """A point in time as ISO 8601; where `seconds` are allowed, also a number of them."""

    name = "moment"

    def __init__(self, seconds: bool) -> None:
        self._seconds = seconds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A time, or a number."""
        if not isinstance(value, str):
            return value
        if self._seconds:
            try:
                return float(value)
            except ValueError:
                pass
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            wanted = "ISO 8601, such as 2027-01-01T12:00:00+00:00" + (" or seconds" if self._seconds else "")
            self.fail(f"{value!r} is not {wanted}", param, ctx)


@command(CALL_EXAMPLES)
@click.argument("name", metavar="TASK")
@click.option("-a", "--args", type=Json(list, "'[2, 3]'"), default="[]", metavar="JSON", help="Positional arguments.")
@click.option("-k", "--kwargs", type=Json(dict, KWARGS), default="{}", metavar="JSON", help="Keyword arguments.")
@click.option("--eta", type=_Moment(seconds=False), metavar="TIME", help="Not before this time (ISO 8601).")
@click.option("--countdown", type=float, metavar="S", help="Not before so many seconds from now.")
@click.option("--expires", type=_Moment(seconds=True), metavar="TIME|S", help="Not after this time, or these seconds.")
@click.option("--serializer", metavar="NAME", help="Of the arguments; default: as the app's settings say.")
@click.option("--queue", metavar="NAME", help="Into this queue, wherever the routes lead.")
@click.option("--exchange", metavar="NAME", help="To this exchange, with --routing-key.")
@click.option("--routing-key", metavar="KEY", help="With this key.")
@pass_context
def call(context: Context, /, name: str, **given: Any) -> None:
    """Send a call of a task by its name, known here or not; print its id.

    `opsq run task` checks the name first, and can wait for the value.
    """
    app = context.app
    app.import_tasks()
    options = {key: value for key, value in given.items() if value is not None}
    result = app.send_task(name, options.pop("args"), options.pop("kwargs"), **options)
    context.out.document({"id": result.id, "task": name}) if context.out.json else context.out.line(result.id)


@command(PURGE_EXAMPLES)
@click.option("-f", "--force", is_flag=True, help="Do not ask (the same as --yes).")
@click.option("-Q", "--queues", callback=names, metavar="LIST", help="These queues; default: all of the app.")
@click.option("-X", "--exclude-queues", callback=names, metavar="LIST", help="Queues to leave as they are.")
@confirm_options
@pass_context
def purge(
    context: Context, force: bool, queues: list[str], exclude_queues: list[str], yes: bool, dry_run: bool
) -> None:
    """Throw away all messages that wait in the app's queues; what is running goes on.

    There is no way back. `opsq queues purge` empties one queue.
    """
    from opsq.broker import moving
    from opsq.broker.queues import states

    broker = context.broker
    names = [name for name in dict.fromkeys(queues or context.app.queues()) if name not in exclude_queues]
    if not names:
        raise UsageError("no queue is left to purge", why="-X excludes all of them")
    if dry_run:
        counts = {state.name: state.pending for state in states(broker, names)}
    else:
        what = _several(len(names), "queue")
        if not confirmed(f"Remove all messages from {what}: {', '.join(names)}? There is no undo.", yes or force):
            raise click.Abort
        counts = {name: moving.purge(broker, name) for name in names}
    count, out = sum(counts.values()), context.out
    if out.json:
        out.document({"purged": 0 if dry_run else count, "queues": counts})
    elif dry_run:
        out.line(f"{_several(count, 'message')} would be purged from {_several(len(names), 'queue')}: nothing was done")
    elif count:
        which = _several(len(names), "queue").partition(" ")[2]
        out.line(f"Purged {_several(count, 'message')} from {len(names)} known task {which}.")
    else:
        out.line(f"No messages purged from {_several(len(names), 'queue')}")


def _several(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


@group(LIST_EXAMPLES, name="list")
def list_() -> None:
    """Show what the broker holds, in Celery's words."""


@list_.command(examples=LIST_EXAMPLES)
@pass_context
def bindings(context: Context) -> None:
    """Show which queues are bound to which exchanges, by which keys."""
    from opsq.broker import queues

    declared = context.app.declared.by_name.values()
    exchanges = {*context.queue_names(), *(each.exchange for queue in declared for each in queue.bindings)}
    found = [
        {"queue": queue, "exchange": exchange, "routing_key": key}
        for exchange, key, queue in queues.bindings(context.broker, sorted(exchanges))
    ]
    if context.out.json:
        context.out.document({"bindings": found})
        return
    rows = [("Queue", "Exchange", "Routing Key"), ("-" * 16, "-" * 16, "-" * 16)]
    for queue, exchange, key in (*rows, *(tuple(row.values()) for row in found)):
        context.out.line(f"{queue:<28} {exchange:<28} {key}".rstrip())


@command(REPORT_EXAMPLES)
@pass_context
def report(context: Context) -> None:
    """Show software, platform and settings for a bug report; passwords are hidden.

    `opsq doctor` says what is wrong.
    """
    from opsq.app.report import report as text

    app = context.app
    app.conf.load()
    context.out.document({"report": text(app)}) if context.out.json else context.out.line(text(app))
