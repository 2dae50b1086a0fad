"""`opsq start|stop|restart|signal|reload|scale`: the supervisor's verbs, each a request to its daemon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from opsq.cli.commands.up import exit_for_failures
from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.cli.params import named_signal
from opsq.exceptions import OpsqError
from opsq.supervisor import client
from opsq.supervisor.messages import Reload, Restart, Signal, Start, Status, Stop

_NAMES = click.argument("names", nargs=-1, required=True, metavar="NAME...")


@command("opsq start web\nopsq start all")
@_NAMES
@pass_context
def start(context: Context, names: tuple[str, ...]) -> None:
    """Start programs (names, groups, or all) and what they need."""
    _tell(context, client.ask(context.state_dir, Start(list(names))))


@command("opsq stop web\nopsq stop all")
@_NAMES
@pass_context
def stop(context: Context, names: tuple[str, ...]) -> None:
    """Stop programs (names, groups, or all); they stay stopped until `start` or `up`."""
    _tell(context, client.ask(context.state_dir, Stop(list(names))))


@command("opsq restart worker\nopsq restart all")
@_NAMES
@pass_context
def restart(context: Context, names: tuple[str, ...]) -> None:
    """Stop programs (names, groups, or all) and start them again."""
    _tell(context, client.ask(context.state_dir, Restart(list(names))))


@command("opsq signal HUP worker\nopsq signal USR1 all")
@click.argument("signal_name", metavar="SIGNAL")
@_NAMES
@pass_context
def signal(context: Context, signal_name: str, names: tuple[str, ...]) -> None:
    """Send a signal to the main processes of programs (names, groups, or all)."""
    answer = client.ask(context.state_dir, Signal(list(names), named_signal(signal_name)))
    if not answer["signalled"]:
        raise OpsqError("nobody was signalled", why="none of these runs", hint="opsq status")
    context.out.say(f"signalled: {', '.join(answer['signalled'])}")


@command("opsq reload --dry-run\nopsq reload")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@pass_context
def reload(context: Context, dry_run: bool) -> None:
    """Read the project's file again: start what is new, stop what has gone, restart what has changed.

    Workers that have not changed read their code and settings again; nothing that runs is interrupted.
    """
    _change(context, {}, dry_run, again=True)


@command("opsq scale worker 3\nopsq scale web 1")
@click.argument("name")
@click.argument("copies", type=click.IntRange(1, 1000))
@pass_context
def scale(context: Context, name: str, copies: int) -> None:
    """Run so many copies of a program, until `down`; what is too much is stopped.

    For good: `numprocs` in the project's file.
    """
    _change(context, {name: copies}, dry_run=False)


def _change(context: Context, scale: Mapping[str, int], dry_run: bool, again: bool = False) -> None:
    """Make the running plan once more, from what it was made from, and have what differs done."""
    from opsq.supervisor import compose
    from opsq.supervisor.handlers import unknown_program

    state = context.state_dir
    told = client.ask(state, Status())
    place = compose.same_place(state, told["origin"], scale)
    for name in scale:
        if name not in (*place.scalable, *place.services):
            raise unknown_program(name, place.scalable)
    plan = compose.compose(place)
    answer = client.ask(state, Reload(plan.to_data(), dry_run, again))
    _tell_change(context, answer)
    if dry_run:
        return
    exit_for_failures(answer["programs"])
    for name, why in answer.get("not_reloaded", {}).items():
        raise OpsqError(f"{name} was not reloaded, its old code goes on", why=why)


def _tell_change(context: Context, answer: Mapping[str, Any]) -> None:
    kinds: Sequence[str] = ("added", "changed", "removed", "reloaded")
    failed: Mapping[str, str] = answer.get("not_reloaded", {})
    answer = {**answer, "reloaded": [name for name in answer.get("reloaded", []) if name not in failed]}
    if context.out.json:
        told = {kind: answer[kind] for kind in kinds}
        context.out.document(told | {"not_reloaded": failed, "programs": answer.get("programs", [])})
    for kind in kinds:
        if answer[kind]:
            context.out.say(f"{kind}: {', '.join(answer[kind])}")
    if not failed and not any(answer[kind] for kind in kinds):
        context.out.say("nothing has changed")


def _tell(context: Context, answer: Mapping[str, Any]) -> None:
    programs = answer["programs"]
    if context.out.json:
        context.out.document({"programs": programs})
    else:
        for program in programs:
            context.out.say(f"{program['name']}: {program['state']}")
    exit_for_failures(programs)
