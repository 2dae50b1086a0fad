"""`opsq up|down|status|start|stop|restart|signal`: the supervisor's verbs, each a request to its daemon."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opsq.cli.commands.logs import ends_of_logs, logs
from opsq.cli.commands.status import status
from opsq.cli.context import Context, pass_context
from opsq.cli.params import command
from opsq.exceptions import OpsqError, SupervisorError, UsageError
from opsq.supervisor import client
from opsq.supervisor.messages import Down, Restart, Signal, Start, Stop

if TYPE_CHECKING:
    from opsq.supervisor.compose import Place
    from opsq.supervisor.plan import Plan

__all__ = ["down", "logs", "restart", "signal", "start", "status", "stop", "up"]

_END_PATIENCE_S = 15.0

UP_EXAMPLES = """
opsq up
opsq -A proj up
opsq up redis
opsq up --foreground
"""


@command(UP_EXAMPLES)
@click.argument("names", nargs=-1, metavar="[PROGRAM]...")
@click.option("--foreground", is_flag=True, help="Stay here and show all logs; Ctrl-C stops everything.")
@pass_context
def up(context: Context, names: tuple[str, ...], foreground: bool) -> None:
    """Start what this project needs (or the named programs and what they need), and keep it running.

    Without a broker a private Redis is started as well.
    """
    from opsq.supervisor import compose, launch, statefile
    from opsq.supervisor.messages import Up

    if sys.platform != "linux":
        raise UsageError("opsq up needs Linux here", hint="opsq worker runs in the foreground anywhere")
    state = context.state_dir
    place = compose.find_place(state, Path.cwd(), context.flags)
    _check_worker_flags(place)
    state.create()
    plan = compose.compose(place)
    _check_names(plan, names)
    _hint_at_an_app(context, place)
    if foreground:
        _stay(context, plan, names)
    if client.keeper(state) is None:
        if not statefile.anything_left(state):
            statefile.remove(state)
        launch.start_keeper(state)
        launch.wait_for_keeper(state)
    app_named = place.app is not None
    answer = client.ask(state, Up(plan=plan.to_data(), names=list(names), app_named=app_named))
    _tell_up(context, answer)


def _tell_up(context: Context, answer: Mapping[str, Any]) -> None:
    out, programs = context.out, answer["programs"]
    for name in answer["changed"]:
        out.say(f"{name} has changed: opsq restart {name}")
    if answer["already"]:
        out.say("already up")
    running = [program["name"] for program in programs if program["ready"]]
    app = f" (app {answer['app']})" if answer["app"] and "worker" in running else ""
    if context.out.json:
        out.document({"programs": programs, "already": answer["already"]})
    out.say(f"running: {', '.join(running) or 'nothing'}{app}")
    out.say(f"logs: {context.state_dir.log}")
    out.say("follow them: opsq logs -f")
    out.say("stop everything: opsq down")
    _exit_for_failures(programs)


def _exit_for_failures(programs: Sequence[Mapping[str, Any]]) -> None:
    """Say what does not run, and exit with 1 if there is anything."""
    failed = [program for program in programs if program["wanted"] and not program["ready"]]
    for program in failed:
        reason = program["reason"] or "no reason known"
        print(f"opsq: {program['name']} is {program['state']}: {reason}", file=sys.stderr)
        print(f"hint: opsq logs {program['name']}", file=sys.stderr)
    if failed:
        click.get_current_context().exit(1)


def _check_names(plan: Plan, names: Sequence[str]) -> None:
    from opsq.supervisor.handlers import unknown_program

    for name in names:
        if name not in plan.programs:
            raise unknown_program(name, plan.programs)


def _check_worker_flags(place: Place) -> None:
    """Every key of `[worker]` must be a long option of `opsq worker`."""
    if not place.file.worker:
        return
    from opsq.cli.commands.worker import worker
    from opsq.config.toml_file import unknown

    options = [param for param in worker.params if isinstance(param, click.Option)]
    known = {name[2:].replace("-", "_") for option in options for name in option.opts if name.startswith("--")}
    for name in place.file.worker:
        if name.replace("-", "_") not in known:
            raise unknown(place.file.path, name, "key of [worker]", sorted(known))


def _hint_at_an_app(context: Context, place: Place) -> None:
    from opsq.supervisor.compose import file_with_app

    if place.app is None and place.services and (name := file_with_app(place.folder)):
        context.out.say(f"no app named; this folder has {name}: `opsq -A {name.removesuffix('.py')} up`")


def _stay(context: Context, plan: Plan, names: Sequence[str]) -> None:
    """Become the keeper; the plan is left where the daemon will look for it."""
    from opsq.supervisor import launch, statefile

    state = context.state_dir
    if client.keeper(state) is not None:
        raise UsageError("opsq is already up here", why=f"it runs in {state.root}", hint="opsq down, or opsq logs -f")
    statefile.StateFile(state).write(statefile.fresh(plan, names))
    show = [sys.executable, "-P", "-m", "opsq", "--state-dir", str(state.root), "logs", "--all", "--follow"]
    flags = ["--plain"] if context.flags.get("plain") else []
    launch.become_keeper(state, [*show, "--from", ends_of_logs(state), *flags])


@command("opsq down")
@pass_context
def down(context: Context) -> None:
    """Stop everything that `up` started, the private Redis last."""
    from opsq.runtime.process import wait_end
    from opsq.supervisor import launch, statefile

    state = context.state_dir
    keeper = client.keeper(state)
    if keeper is None and statefile.anything_left(state):
        # Keeper and daemon were killed and the programs live on: new ones take these over, to end them in order.
        launch.start_keeper(state)
        launch.wait_for_keeper(state)
        keeper = client.keeper(state)
    if keeper is None:
        context.out.say("nothing is up here")
        return
    client.ask(state, Down())
    if not wait_end(keeper, _END_PATIENCE_S):
        raise SupervisorError("the programs have ended, the supervisor has not", hint=f"kill {keeper.pid}")
    context.out.say("everything is down")


@command("opsq start web\nopsq start all")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@pass_context
def start(context: Context, names: tuple[str, ...]) -> None:
    """Start programs (names, groups, or all) and what they need."""
    _tell(context, client.ask(context.state_dir, Start(list(names))))


@command("opsq stop web\nopsq stop all")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@pass_context
def stop(context: Context, names: tuple[str, ...]) -> None:
    """Stop programs (names, groups, or all); they stay stopped until `start` or `up`."""
    _tell(context, client.ask(context.state_dir, Stop(list(names))))


@command("opsq restart worker\nopsq restart all")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@pass_context
def restart(context: Context, names: tuple[str, ...]) -> None:
    """Stop programs (names, groups, or all) and start them again."""
    _tell(context, client.ask(context.state_dir, Restart(list(names))))


@command("opsq signal HUP worker\nopsq signal USR1 all")
@click.argument("signal_name", metavar="SIGNAL")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@pass_context
def signal(context: Context, signal_name: str, names: tuple[str, ...]) -> None:
    """Send a signal to the main processes of programs (names, groups, or all)."""
    from opsq.supervisor.plan import read_signal

    try:
        number = read_signal(signal_name)
    except ValueError as error:
        raise UsageError(str(error), hint="TERM, HUP, USR1, ... or a number") from None
    answer = client.ask(context.state_dir, Signal(list(names), number))
    if not answer["signalled"]:
        raise OpsqError("nobody was signalled", why="none of these runs", hint="opsq status")
    context.out.say(f"signalled: {', '.join(answer['signalled'])}")


def _tell(context: Context, answer: Mapping[str, Any]) -> None:
    programs = answer["programs"]
    if context.out.json:
        context.out.document({"programs": programs})
    else:
        for program in programs:
            context.out.say(f"{program['name']}: {program['state']}")
    _exit_for_failures(programs)
