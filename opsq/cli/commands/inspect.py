"""`opsq inspect` and `opsq control`: remote commands to workers, Celery's too, with Celery's flags and output."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pprint import pformat
from typing import Any

import click

import opsq.worker.control
import opsq.worker.inspection  # noqa: F401 (both fill the table of commands; an app may add its own)
from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.cli.params import names, options
from opsq.exceptions import BrokerError, UsageError
from opsq.worker.panel import Info, Panel

INSPECT_EXAMPLES = """
opsq inspect ping
opsq inspect active
opsq inspect registered serializer rate_limit
opsq inspect stats -d celery@web1 --json
opsq inspect query_task 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11
opsq inspect --list
"""
CONTROL_EXAMPLES = """
opsq control pool_grow 2
opsq control rate_limit proj.tasks.mail 100/m
opsq control add_consumer mail -d celery@web1
opsq control terminate KILL 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11
opsq control shutdown -d celery@web1,celery@web2
opsq control --list
"""


def _json_flag(kind: str) -> Any:
    return click.option("-j", "as_json", envvar=f"CELERY_{kind}_JSON", is_flag=True, help="The same as --json.")


_OPTIONS = (
    click.argument("name", metavar="[COMMAND]", required=False),
    click.argument("words", metavar="[ARG]...", nargs=-1),
    click.option("--list", "listed", is_flag=True, help="The commands there are."),
    click.option(
        "-t", "--timeout", type=click.FloatRange(0), default=1.0, metavar="S", show_default=True, help="Wait so long."
    ),
    click.option("-d", "--destination", callback=names, metavar="LIST", help="Only these nodes, with commas."),
)


@command(INSPECT_EXAMPLES)
@options((*_OPTIONS, _json_flag("INSPECT")))
@pass_context
def inspect(context: Context, /, **given: Any) -> None:
    """Ask workers something: what they run, hold, know.

    Workers of opsq and of Celery answer alike.
    """
    _run(context, "inspect", **given)


@command(CONTROL_EXAMPLES)
@options((*_OPTIONS, _json_flag("CONTROL")))
@pass_context
def control(context: Context, /, **given: Any) -> None:
    """Tell workers to do something.

    Workers of opsq and of Celery obey alike. `opsq tasks revoke` reaches workers that are down, too.
    """
    _run(context, "control", **given)


def _run(
    context: Context,
    kind: str,
    name: str | None,
    words: Sequence[str],
    listed: bool,
    timeout: float,
    destination: Sequence[str],
    as_json: bool,
) -> None:
    app = context.app
    app.import_tasks()  # they may add commands
    known = {name: info for name, info in sorted(Panel.meta.items()) if info.type == kind and info.visible}
    if listed:
        for each, info in known.items():
            context.out.line(f"{each} {info.signature or ''}".rstrip() + f"\n    {info.help}")
        return
    if name is None or name not in known:
        what = f"there is no {kind} command {name!r}" if name else f"say which {kind} command"
        raise UsageError(what, hint=f"one of {', '.join(known)}")
    arguments = arguments_of(name, known[name], list(words))
    replies = app.control.broadcast(
        name, arguments=arguments, destination=list(destination) or None, reply=True, timeout=timeout
    )
    told = {node: reply for each in replies or () for node, reply in each.items()}
    if context.out.json or as_json:
        as_celery = told if kind == "inspect" else [{node: reply} for node, reply in told.items()]
        print(json.dumps(as_celery))
    elif told:
        for node, reply in told.items():
            context.out.line("\n".join(shown(node, reply)))
        context.out.say(f"\n{len(told)} {'node' if len(told) == 1 else 'nodes'} online.")
    if not told and name != "shutdown":
        raise BrokerError(f"no worker has replied within {timeout:g} s", hint="opsq workers lists those that are alive")
    if any(isinstance(reply, Mapping) and "error" in reply for reply in told.values()):
        raise click.exceptions.Exit(1)


def arguments_of(name: str, info: Info, words: list[str]) -> dict[str, Any]:
    """What a command is sent with, from the words of a command line. Raises UsageError."""
    wanted = info.args or []
    usage = f"it takes {info.signature}" if info.signature else "it takes none"
    if len(words) > len(wanted) and not info.variadic:
        raise UsageError(f"too many arguments for {name}", why=usage)
    if len(words) < min((info.signature or "").count("<"), len(wanted)):
        raise UsageError(f"too few arguments for {name}", why=usage)
    arguments: dict[str, Any] = {}
    for (argument, kind), word in zip(wanted, words, strict=False):
        try:
            arguments[argument] = kind(word) if kind is not None else word
        except ValueError:
            raise UsageError(f"cannot use {word!r} as {argument} of {name}", why=usage) from None
    if info.variadic and info.variadic not in arguments:
        arguments[info.variadic] = words[len(wanted) :]
    return arguments


def shown(node: str, reply: Any) -> list[str]:
    """A reply as Celery shows it."""
    status, text = "OK", ""
    if isinstance(reply, list):
        text = "\n".join(f"* {each}" for each in reply) or "- empty -"
    elif isinstance(reply, Mapping) and "error" in reply:
        status, text = "ERROR", str(reply["error"])
    elif isinstance(reply, Mapping) and "ok" in reply:
        text = reply["ok"] if isinstance(reply["ok"], str) else pformat(reply["ok"])
    elif isinstance(reply, Mapping):
        text = json.dumps(reply, sort_keys=True, indent=4)
    else:
        text = reply if isinstance(reply, str) else pformat(reply)
    return [f"->  {node}: {status}", *(f"    {line}" for line in text.splitlines())]
