"""`opsq status`: the programs from the supervisor, then the queues from the broker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.cli.output import Column, size
from opsq.cli.watch import watched
from opsq.exceptions import BrokerError, OpsqError, RefusedError, SupervisorError
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
    Column("limited", "LIMITED", "number", rare=True),
    Column("dead", "DEAD", "number"),
    Column("oldest", "OLDEST", "seconds"),
)
EXAMPLES = """
opsq status
opsq status worker
opsq status --watch
opsq status --all
opsq status --json
"""
#: How long one of all supervisors may keep the others waiting, seconds.
ALL_PATIENCE_S = 2.0


INSTANCE_COLUMNS = (
    Column("directory", "STATE DIRECTORY", cut="start"),
    Column("app", "APP", cut="end"),
    Column("running", "RUNNING"),
    Column("since", "SINCE", "time", extra=True),
    Column("version", "VERSION", extra=True),
    Column("keeper_pid", "PID", "number"),
)


@command(EXAMPLES)
@click.argument("names", nargs=-1, metavar="[PROGRAM]...")
@click.option("--watch", is_flag=True, help="Show it again each second, until Ctrl-C.")
@click.option("--all", "everywhere", is_flag=True, help="All supervisors of this user.")
@pass_context
def status(context: Context, names: tuple[str, ...], watch: bool, everywhere: bool) -> None:
    """Show what runs and what waits.

    Exit code 0: all that should run does; 1: something does not; 2: unknown name; 3: neither supervisor nor broker.
    """
    show = partial(_show_all, context) if everywhere else partial(_show, context, names)
    if watch:
        watched(context, show)
    if not show():
        click.get_current_context().exit(1)


def _show_all(context: Context) -> bool:
    """Every supervisor of this user, wherever it is."""
    from opsq.supervisor.instances import find

    rows = []
    for state in find():
        try:
            told = client.ask(state, Status(), ALL_PATIENCE_S)
        except OpsqError as error:
            context.out.say(f"{state.root}: {error}")
            continue
        wanted = [program for program in told["programs"] if program["wanted"]]
        running = sum(program["state"] == "RUNNING" for program in wanted)
        row = {"directory": str(state.root), "app": told["app"], **told["supervisor"]}
        rows.append(
            {**row, "programs": len(wanted), "programs_running": running, "running": f"{running} of {len(wanted)}"}
        )
    context.out.table("instances", INSTANCE_COLUMNS, rows, empty="no supervisor of yours runs on this machine")
    return all(row["programs"] == row["programs_running"] for row in rows)


def _show(context: Context, names: Sequence[str]) -> bool:
    """This project; whether all that should run does."""
    told = _ask(context, names)
    programs = _chosen(told["programs"], names)
    queues, hosts = ([], {}) if names else _in_redis(context, told)
    if context.out.json:
        supervisor = {"supervisor": told["supervisor"], "app": told["app"]}
        context.out.document({**supervisor, "programs": programs, "queues": queues, "hosts": hosts})
    else:
        rows = [{**program, "memory": _memory(program["memory_bytes"])} for program in programs]
        context.out.table("programs", PROGRAM_COLUMNS, rows, empty="no programs")
        if rows and queues:
            context.out.line("")
        context.out.table("queues", QUEUE_COLUMNS, queues)
        if hosts:
            away = [name for name, state in hosts.items() if state == "away"]
            context.out.line(f"\nhosts: {len(hosts) - len(away)} present" + (f", {len(away)} away" if away else ""))
    return all(program["state"] == "RUNNING" for program in programs if program["wanted"])


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


def _broker_that_answers(context: Context) -> dict[str, Any] | None:
    """The broker that the flags, the environment or the app name."""
    from opsq.broker import depths

    try:
        url, key_prefix, priorities = context.broker_address
        depths.answers(depths.Address(url, key_prefix))
    except OpsqError as error:
        if context.names_a_broker:
            context.out.say(f"broker: {error}")
        return None
    return {"url": url, "key_prefix": key_prefix, "priorities": priorities}


def _in_redis(context: Context, told: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Queues and hosts, as the broker of the running app says; nobody is spoken to when there is none."""
    if told["broker"] is None:
        return [], {}
    from opsq.broker import depths
    from opsq.datastore import attendance
    from opsq.datastore.priorities import Priorities

    where = told["broker"]
    broker = depths.Address(where["url"], where["key_prefix"], Priorities.of(where.get("priorities")))
    try:
        queues = [state.to_data() for state in depths.states(broker, depths.known(broker))]
        return queues, attendance.hosts(broker.url)
    except (BrokerError, RefusedError) as error:
        context.out.say(f"queues: {error}")
        return [], {}


def _chosen(programs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Mapping[str, Any]]:
    if not names:
        return list(programs)
    from opsq.supervisor.handlers import means, unknown_program

    for name in names:
        if not any(means(name, program["name"], program["group"]) for program in programs):
            raise unknown_program(name, [program["name"] for program in programs])
    return [each for each in programs if any(means(name, each["name"], each["group"]) for name in names)]


def _memory(count: int | None) -> str | None:
    return None if count is None else size(count)
