"""The commands, their options and what their values are, read from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import click

from opsq.cli.frame import Shared

#: Words that are asked for when Tab is pressed (`words.py`); everything else stands in the script.
ASKED = ("programs", "targets", "queues", "tasks", "hosts")
FILES = "files"
#: What the arguments of a command are; of a tuple the last one goes on.
_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "up": ("programs",),
    "status": ("programs",),
    "logs": ("programs",),
    "start": ("targets",),
    "stop": ("targets",),
    "restart": ("targets",),
    "signal": ("=HUP INT TERM KILL QUIT USR1 USR2", "targets"),
    "scale": ("programs", ""),
    "run task": ("tasks", ""),
    "call": ("tasks", ""),
    "queues peek": ("queues", ""),
    "queues purge": ("queues", ""),
    "queues move": ("queues", "queues", ""),
    "queues pause": ("queues",),
    "queues resume": ("queues",),
    "hosts": ("hosts",),
    "init": (FILES,),
}
_OPTIONS: Mapping[str, str] = {
    "queue": "queues",
    "queues": "queues",
    "exclude_queues": "queues",
    "hosts": "hosts",
    "host": "hosts",
    "task": "tasks",
    "workdir": FILES,
    "state_dir": FILES,
    "config": FILES,
    "configuration": FILES,
    "output": FILES,
    "logfile": FILES,
    "pidfile": FILES,
}


@dataclass(frozen=True, slots=True)
class Flag:
    """An option: all its names, its help, and what its value is; None: it has no value.

    A value is "" (anything), "files", one of ASKED, or "=" and the words that it may be.
    """

    names: tuple[str, ...]
    help: str
    value: str | None
    shared: bool


@dataclass(frozen=True, slots=True)
class Node:
    """A command: its words, the commands below it with their help, its options, and what its arguments are."""

    path: str
    below: Mapping[str, str]
    flags: tuple[Flag, ...]
    arguments: tuple[str, ...]


def tree(top: click.Group) -> list[Node]:
    """All commands, the top first."""
    context = click.Context(top, info_name="opsq")
    return list(_nodes(top, context, ""))


def _nodes(command: click.Command, context: click.Context, path: str) -> Iterator[Node]:
    inner: dict[str, click.Command] = {}
    if isinstance(command, click.Group):
        found = {name: command.get_command(context, name) for name in command.list_commands(context)}
        inner = {name: each for name, each in found.items() if each is not None and not each.hidden}
    flags = [_flag(param) for param in command.get_params(context) if isinstance(param, click.Option)]
    yield Node(
        path,
        {name: each.get_short_help_str(60) for name, each in inner.items()},
        tuple(flag for flag in flags if flag is not None),
        _arguments(command, path),
    )
    for name, each in inner.items():
        yield from _nodes(each, click.Context(each, info_name=name, parent=context), f"{path} {name}".strip())


def _flag(option: click.Option) -> Flag | None:
    if option.hidden:
        return None
    help = " ".join((option.help or "").split())
    return Flag((*option.opts, *option.secondary_opts), help, _value(option), isinstance(option, Shared))


def _value(option: click.Option) -> str | None:
    if option.is_flag or option.count:
        return None
    if isinstance(option.type, click.Choice):
        return "=" + " ".join(map(str, option.type.choices))
    if isinstance(option.type, click.Path):
        return FILES
    return _OPTIONS.get(str(option.name), "")


def _arguments(command: click.Command, path: str) -> tuple[str, ...]:
    if path in _ARGUMENTS:
        return _ARGUMENTS[path]
    kinds = []
    for param in command.params:
        if isinstance(param, click.Argument):
            kinds.append("=" + " ".join(map(str, param.type.choices)) if isinstance(param.type, click.Choice) else "")
            if param.nargs != -1:
                kinds.append("")
    return tuple(kinds)
