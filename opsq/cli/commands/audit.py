"""`opsq audit`: whether everything that was taken from the queues is accounted for."""

from __future__ import annotations

from typing import Any

import click

from opsq.broker import audit as store
from opsq.broker.audit import Balance
from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.cli.output import Column
from opsq.cli.params import limit_option, limited
from opsq.datastore import keys
from opsq.exceptions import OpsqError

COLUMNS = (
    Column("queue", "QUEUE", cut="start"),
    Column("sent", "SENT", "number"),
    Column("succeeded", "DONE", "number"),
    Column("failed", "FAILED", "number", rare=True),
    Column("dead", "DEAD", "number", rare=True),
    Column("running", "RUNNING", "number", rare=True),
    Column("waiting", "WAITING", "number", rare=True),
    Column("delayed", "DELAYED", "number", rare=True),
    Column("limited", "LIMITED", "number", rare=True),
    Column("missing", "MISSING", "number"),
    Column("known", "KNOWN", "number", extra=True),
    Column("retried", "RETRIED", "number", extra=True),
    Column("thrown_away", "REVOKED", "number", extra=True),
    Column("rejected", "REJECTED", "number", extra=True),
)
#: What can come of a message; always in the data.
STATES = ("succeeded", "failed", "retried", "dead", "rejected", "revoked", "expired", "ignored")

EXAMPLES = """
opsq audit
opsq audit --queue mail
opsq audit --json
opsq audit --accept
"""


@command(EXAMPLES)
@click.option("-Q", "--queue", metavar="QUEUE", help="Only this queue.")
@click.option("--accept", is_flag=True, help="What is missing now is known; report only what is missing besides.")
@limit_option
@pass_context
def audit(context: Context, queue: str | None, accept: bool, limit: int) -> None:
    """Whether all is accounted for: sent = done + failed + dead + retried + running + waiting + delayed + limited.

    The turn of the workers keeps the books, so they begin when a message is taken: what waits was not counted on its
    way in, what a Celery worker took is not in them. Each try of a retried task is a message of its own, and so is a
    dead letter that was requeued. Ends with 1 when messages are missing.
    """
    broker = context.broker
    names = context.queue_names(queue)
    balances = store.balances(broker, limited(names, limit))
    off = [balance for balance in balances if balance.missing]
    rows = [_row(balance) for balance in balances]
    context.out.table("audit", COLUMNS, rows if context.out.json else [_short(row) for row in rows], total=len(names))
    if accept:
        for balance in off:
            store.accept(broker, balance)
        context.out.say(f"known from now on: {len(off)} differences" if off else "nothing is missing")
        return
    if off and not context.out.json:
        raise _trouble(context, off)
    if off:
        raise click.exceptions.Exit(1)


def _row(balance: Balance) -> dict[str, Any]:
    """A queue as scripts get it."""
    return {
        "queue": balance.queue,
        "sent": balance.sent,
        **{state: balance.ended.get(state, 0) for state in STATES},
        "running": balance.in_flight,
        "waiting": balance.waiting,
        "delayed": balance.delayed,
        "limited": balance.limited,
        "missing": balance.missing,
        "known": balance.known,
        "taken": balance.taken,
        "moved": balance.moved,
        "dead_letters": balance.letters,
    }


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """For people: what was ignored is done, what has expired was thrown away; noughts of what is rare are blank."""
    more = {
        "succeeded": row["succeeded"] + row["ignored"],
        "thrown_away": row["revoked"] + row["expired"],
    }
    told = {**row, **more}
    return {
        name: None if name in ("known", "retried", "thrown_away", "rejected") and not value else value
        for name, value in told.items()
    }


def _trouble(context: Context, off: list[Balance]) -> OpsqError:
    """What to look at, of the queue that lacks most."""
    worst = max(off, key=lambda balance: abs(balance.missing))
    name, count = worst.queue, abs(worst.missing)
    messages = "1 message" if count == 1 else f"{count} messages"
    if worst.missing < 0:
        return OpsqError(
            f"more messages of {name!r} have ended than were taken, by {count}",
            why="its counters, or the server's last writes, were lost",
            hint="opsq doctor says how this server keeps data; opsq audit --accept if it is known",
        )
    lost = store.unowned(context.broker, name)
    if lost:
        holder = next(iter(lost))
        registry = context.broker.key(keys.consumers(name))
        return OpsqError(
            f"{sum(lost.values())} messages of {name!r} are held by consumers that nobody would rescue",
            why=f"{holder} holds them and is not registered",
            hint=f"redis-cli ZADD '{registry}' 0 '{holder}'; a worker of the queue then takes over",
        )
    return OpsqError(
        f"nothing is known of {messages} taken from {name!r}",
        why="a key was deleted, or the server lost what it had confirmed",
        hint="opsq doctor says how this server keeps data; opsq audit --accept if it is known",
    )
