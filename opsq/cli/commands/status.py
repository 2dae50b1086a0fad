"""`opsq status`: the programs from the supervisor, then the queues from the broker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.output import Column
from opsq.cli.params import command
from opsq.exceptions import BrokerError, OpsqError, SupervisorError
from opsq.supervisor import client
from opsq.supervisor.messages import Status

PROGRAM_COLUMNS = (
    Column("name", "PROGRAM"),
    Column("state", "STATE"),
    Column("pid", "PID", "number"),
    Column("uptime", "UP", "seconds"),
    Column("restarts", "RESTARTS", "number", extra=True),
    Column("cpu_percent", "CPU %", "number", extra=True),
    Column("memory", "MEMORY", "number", extra=True),
    Column("reason", "REASON", cut="end"),
)
QUEUE_COLUMNS = (
    Column("name", "QUEUE", cut="start"),
    Column("waiting", "WAITING", "number"),
    Column("in_flight", "IN FLIGHT", "number"),
    Column("delayed", "DELAYED", "number", extra=True),
    Column("dead", "DEAD", "number"),
    Column("oldest", "OLDEST", "seconds"),
)
EXAMPLES = """
opsq status
opsq status worker
opsq status --json
"""


@command(EXAMPLES)
@click.argument("names", nargs=-1, metavar="[PROGRAM]...")
@pass_context
def status(context: Context, names: tuple[str, ...]) -> None:
    """Show what runs and what waits.

    Exit code 0: all that should run does; 1: something does not; 2: unknown name; 3: neither supervisor nor broker.
    """
    told = _ask(context, names)
    programs = _chosen(told["programs"], names)
    queues = [] if names else _queues(context, told)
    if context.out.json:
        supervisor = {"supervisor": told["supervisor"], "app": told["app"]}
        context.out.document({**supervisor, "programs": programs, "queues": queues, "hosts": {}})
    else:
        rows = [{**program, "memory": _size(program["memory_bytes"])} for program in programs]
        context.out.table("programs", PROGRAM_COLUMNS, rows, empty="no programs")
        if rows and queues:
            context.out.line("")
        context.out.table("queues", QUEUE_COLUMNS, queues)
    if not all(program["state"] == "RUNNING" for program in programs if program["wanted"]):
        click.get_current_context().exit(1)


def _ask(context: Context, names: Sequence[str]) -> Mapping[str, Any]:
    """What the supervisor says; without one there may still be a broker to look at."""
    try:
        return client.ask(context.state_dir, Status())
    except SupervisorError as error:
        if names or client.keeper(context.state_dir) is not None:
            raise
        broker = _broker_that_answers(context)
        if broker is None:
            raise
        context.out.say(f"{error.what} ({error.hint})")
        return {"supervisor": None, "app": context.app_spec, "programs": [], "broker": broker}


def _broker_that_answers(context: Context) -> dict[str, str] | None:
    from opsq.datastore.connection import errors

    try:
        broker = context.broker
        with errors(broker.url):
            broker.client.ping()
    except OpsqError:
        return None
    return {"url": broker.url, "key_prefix": broker.key_prefix}


def _queues(context: Context, told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What waits, as the broker of the running app says; redis-py is imported only when there is one."""
    if told["broker"] is None:
        return []
    from opsq.broker import queues as store
    from opsq.broker.broker import Broker
    from opsq.cli.commands.queues import describe

    broker = Broker(told["broker"]["url"], told["broker"]["key_prefix"])
    try:
        names = store.known(broker)
        return [describe(state) for state in store.states(broker, names)] if names else []
    except BrokerError as error:
        context.out.say(f"queues: {error}")
        return []


def _chosen(programs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Mapping[str, Any]]:
    for name in names:
        if not any(name in (program["name"], program["group"]) for program in programs):
            from opsq.supervisor.handlers import unknown_program

            raise unknown_program(name, [program["name"] for program in programs])
    return [each for each in programs if not names or each["name"] in names or each["group"] in names]


def _size(size: int | None) -> str | None:
    if size is None:
        return None
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"
