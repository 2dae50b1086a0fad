"""`opsq up` and `opsq down`: bring everything of a project up, and take it down."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opsq.cli.commands.monitor import url_under_supervision
from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.exceptions import SupervisorError, UsageError
from opsq.supervisor import client
from opsq.supervisor.messages import Down

if TYPE_CHECKING:
    from opsq.runtime.statedir import StateDir
    from opsq.supervisor.compose import Place
    from opsq.supervisor.plan import Plan

_END_PATIENCE_S = 15.0

UP_EXAMPLES = """
opsq up
opsq -A proj up
opsq up redis
opsq up -c supervisord.conf
opsq up --reload
opsq up --foreground --log-format json
"""


@command(UP_EXAMPLES)
@click.argument("names", nargs=-1, metavar="[PROGRAM]...")
@click.option("-c", "--configuration", metavar="FILE", help="An opsq.toml, or a supervisord.conf with [program:x].")
@click.option("--foreground", is_flag=True, help="Stay here and show all logs; Ctrl-C stops everything.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", help="json: --foreground shows objects."
)
@click.option("--reload", is_flag=True, help="In development: workers read their code again when a file changes.")
@click.option("-d", "--detach", is_flag=True, help="What it does anyway, without --foreground.")
@pass_context
def up(
    context: Context,
    names: tuple[str, ...],
    configuration: str | None,
    foreground: bool,
    log_format: str,
    reload: bool,
    detach: bool,
) -> None:
    """Start what this project needs (or the named programs and what they need), and keep it running.

    Without a broker a private Redis is started as well. A supervisord.conf is taken as it is, unchanged.
    """
    from opsq.supervisor import compose, launch, statefile
    from opsq.supervisor.messages import Up

    if sys.platform != "linux":
        raise UsageError("opsq up needs Linux here", hint="opsq worker runs in the foreground anywhere")
    if foreground and detach:
        raise UsageError("--detach and --foreground do not fit together")
    supervisord = _configuration(context, configuration)
    if reload:
        context.flags["reload"] = True
    state = context.state_dir
    running, here = _origin_of_running(state), Path.cwd()
    if configuration is None and (configuration := running.get("supervisord")):
        hint = "it describes what runs here: opsq down ends that, -c names another file"
        supervisord, here = _configuration(context, configuration, hint), Path(running["here"])
    place = compose.find_place(state, here, context.flags, supervisord)
    if place.app is None:
        place = compose.find_place(state, here, {**_said(running), **context.flags}, supervisord)
    _check_worker_flags(place)
    state.create()
    plan = compose.compose(place)
    _check_names(plan, names)
    for note in place.found.notes if place.found else ():
        context.out.say(f"{configuration}: {note}")
    _hint_at_an_app(context, place)
    if foreground:
        _stay(context, plan, names, log_format)
    if client.keeper(state) is None:
        if not statefile.anything_left(state):
            statefile.remove(state)
        launch.start_keeper(state)
        launch.wait_for_keeper(state)
        _say_that_a_reboot_ends_it(context, state)
    app_named = place.app is not None
    answer = client.ask(state, Up(plan=plan.to_data(), names=list(names), app_named=app_named))
    _tell_up(context, answer)


def _origin_of_running(state: StateDir) -> Mapping[str, Any]:
    """What the supervisor that runs here was made from: who names neither app nor file means what runs."""
    from opsq.supervisor.messages import Status

    if client.keeper(state) is None:
        return {}
    return client.ask(state, Status())["origin"] or {}


def _said(origin: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in (origin.get("flags") or {}).items() if value is not None}


def _configuration(context: Context, path: str | None, hint: str = "") -> str | None:
    """An opsq.toml holds for all that is started; the path of a supervisord file is returned."""
    if path is None:
        return None
    if not Path(path).is_file():
        raise UsageError(f"cannot use {path}", why="there is no such file", hint=hint)
    if path.endswith(".toml"):
        context.take("config", path)
        return None
    return str(Path(path).absolute())


def _say_that_a_reboot_ends_it(context: Context, state: StateDir) -> None:
    """Once in a project's life, and not to a service manager, which starts it again."""
    told = state.root / "told-about-reboots"
    if told.exists() or "INVOCATION_ID" in os.environ:
        return
    told.touch()
    context.out.say("it will not come back after a reboot by itself: opsq generate systemd")


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
    shows_page = any(_is_monitor(program) for program in programs if program["ready"])
    if shows_page and (page := url_under_supervision(context)):
        out.say(f"page: {page}")
    out.say("follow them: opsq logs -f")
    out.say("stop everything: opsq down")
    exit_for_failures(programs)


def _is_monitor(program: Mapping[str, Any]) -> bool:
    return program["name"] == "monitor" or "flower" in (program["runs"] or "").split()


def exit_for_failures(programs: Sequence[Mapping[str, Any]]) -> None:
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


def _stay(context: Context, plan: Plan, names: Sequence[str], log_format: str) -> None:
    """Become the keeper; the plan is left where the daemon will look for it."""
    from opsq.cli.commands.logs import ends_of_logs
    from opsq.supervisor import launch, statefile

    state = context.state_dir
    if client.keeper(state) is not None:
        raise UsageError("opsq is already up here", why=f"it runs in {state.root}", hint="opsq down, or opsq logs -f")
    statefile.StateFile(state).write(statefile.fresh(plan, names))
    show = [sys.executable, "-P", "-m", "opsq", "--state-dir", str(state.root), "logs", "--all", "--follow"]
    flags = ["--plain"] if context.flags.get("plain") else []
    launch.become_keeper(state, [*show, "--from", ends_of_logs(state), "--log-format", log_format, *flags])


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
