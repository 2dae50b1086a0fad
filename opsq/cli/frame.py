"""What command lines are made of: commands, groups, examples in help, the options that all commands have.

Options may stand before or after the command: an option before it that the group does not know is handed to the
command. Every command line loads this module, so what only some need is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from opsq.exceptions import UsageError, did_you_mean


class Shared(click.Option):
    """An option that all commands have."""


class _Help:
    """How help is laid out: examples, usage, what it does, commands, own options, options that all have."""

    examples: str

    def get_help_option_names(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """The short one too."""
        return ["-h", "--help"]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """All parts, in their order."""
        write_examples(self.examples, formatter)
        super().format_help(ctx, formatter)  # type: ignore[misc]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options apart from those of all commands."""
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)
        rows: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
        for param in self.get_params(ctx):  # type: ignore[attr-defined]
            row = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if row is not None:
                rows[isinstance(param, Shared)].append(row)
        for shared, heading in ((False, "Options"), (True, "Options of all commands, before or after their name")):
            if rows[shared]:
                with formatter.section(heading):
                    formatter.write_dl(rows[shared])


class Command(_Help, click.Command):
    """A command whose help begins with examples."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples


class Group(_Help, click.Group):
    """A command with commands below it; options may stand before or after their names."""

    command_class = Command
    #: False: the group's own options, too, go to the command (which takes them).
    keeps_own = True

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Hand the options of the command that stand before it to it, then parse."""
        return super().parse_args(ctx, self.sorted_words(ctx, list(args)))

    def sorted_words(self, ctx: click.Context, words: list[str]) -> list[str]:
        """The words with every option that this group does not know behind the name of the command."""
        names = set(self.list_commands(ctx))
        own = option_table(self.get_params(ctx))
        values = _values_of(words, own)
        for place, word in enumerate(words):
            if word == "--":
                break
            if word not in names or place in values:
                continue
            command = self.get_command(ctx, word)
            if command is None:
                continue
            parts = split_options(words[:place], own, _options_below(command, ctx))
            if parts is not None:
                mine, theirs = parts if self.keeps_own else ([], words[:place])
                return [*mine, word, *theirs, *words[place + 1 :]]
        return words

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names. Raises UsageError with the nearest names."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not name.startswith("-"):
            is_task_id = len(name) == 36 and name.count("-") == 4
            elsewhere = f"opsq why {name}" if is_task_id else f"{ctx.command_path} --help"
            hint = did_you_mean(name, self.list_commands(ctx), elsewhere)
            raise UsageError(f"no such command: {name}", hint=hint)
        if command is None:
            raise click.NoSuchOption(name.partition("=")[0], ctx=ctx)
        return name, command, args[1:]


Group.group_class = Group


def write_examples(examples: str, formatter: click.HelpFormatter) -> None:
    """The examples as they stand, one a line."""
    lines = [line.strip() for line in examples.strip().splitlines()]
    if lines:
        formatter.write("Examples:\n" + "".join(f"  {line}\n" if line else "\n" for line in lines) + "\n")


def option_table(params: Iterable[click.Parameter]) -> dict[str, int]:
    """Each name of each option -> how many words follow it as its value."""
    table = {}
    for param in params:
        if isinstance(param, click.Option):
            words = 0 if param.is_flag or param.count else param.nargs
            table.update(dict.fromkeys((*param.opts, *param.secondary_opts), words))
    return table


def _values_of(words: Sequence[str], options: dict[str, int]) -> set[int]:
    """The places of words that are values of these options."""
    places: set[int] = set()
    for place, word in enumerate(words):
        if place not in places:
            places.update(range(place + 1, place + 1 + options.get(word, 0)))
    return places


def _options_below(command: click.Command, ctx: click.Context) -> dict[str, int]:
    """The options of a command and of all that are below it."""
    table: dict[str, int] = {}
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            table.update(_options_below(inner, ctx))
    return {**table, **option_table(command.get_params(ctx))}


def split_options(
    words: Sequence[str], mine: dict[str, int], theirs: dict[str, int]
) -> tuple[list[str], list[str]] | None:
    """Options with their values, mine and the others; None if a word is no option, or a value is missing."""
    kept: list[str] = []
    handed: list[str] = []
    place = 0
    while place < len(words):
        word = words[place]
        if not word.startswith("-") or word in ("-", "--"):
            return None
        known, count = _owner(word, mine, theirs)
        end = place + 1 + count
        if end > len(words):
            return None
        (kept if known else handed).extend(words[place:end])
        place = end
    return kept, handed


def _owner(word: str, mine: dict[str, int], theirs: dict[str, int]) -> tuple[bool, int]:
    """Whether a word is an option of mine, and how many further words are its value."""
    if word.startswith("--") or word in mine or word in theirs:
        name, equals, _value = word.partition("=")
        count = mine[name] if name in mine else theirs.get(name, 0)
        return name in mine, max(count - 1, 0) if equals else count
    for place, letter in enumerate(word[1:], 1):  # a cluster: -Bl info, -linfo
        name = f"-{letter}"
        count = mine[name] if name in mine else theirs.get(name, 0)
        if count:
            attached = place < len(word) - 1
            return f"-{word[1]}" in mine, count - 1 if attached else count
    return f"-{word[1]}" in mine, 0


# -- options that every command has ------------------------------------------------------------------------------------


def global_options(take: Callable[[click.Context, click.Parameter, Any], Any]) -> list[Shared]:
    """The options of all commands; `take` gets their values."""
    shared: dict[str, Any] = {"expose_value": False, "callback": take, "allow_from_autoenv": False}
    flag: dict[str, Any] = {**shared, "is_flag": True, "default": None}
    return [
        Shared(["-A", "--app"], metavar="APP", help="The app: module, module:name, or a package.", **shared),
        Shared(["-b", "--broker"], metavar="URL", help="The broker, whatever the app says.", **shared),
        Shared(["--result-backend"], metavar="URL", help="Where results are kept.", **shared),
        Shared(["--workdir"], metavar="DIR", help="Change to this directory first.", **{**shared, "is_eager": True}),
        Shared(["--config"], metavar="NAME", help="A module with settings, or an opsq.toml or .yaml.", **shared),
        Shared(["--state-dir"], metavar="DIR", help="Where `opsq up` keeps sockets, logs and data.", **shared),
        Shared(["--json"], help="Data as JSON.", **flag),
        Shared(["--plain"], help="Plain text, also in a terminal.", **flag),
        Shared(["-C", "--no-color"], help="No colours.", **flag),
        Shared(["-q", "--quiet"], help="Only data and errors.", **flag),
        # Celery's, which mean nothing here: lines that have them run
        Shared(["--loader"], hidden=True, expose_value=False, allow_from_autoenv=False),
        Shared(["--skip-checks"], is_flag=True, hidden=True, expose_value=False, allow_from_autoenv=False),
    ]


def add_options(command: click.Command, options: Sequence[click.Option]) -> None:
    """Let a command, and all below it, take these options too; a name that it has itself stays its own."""
    if any(param in options for param in command.params):
        return
    taken = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    command.params = [*command.params, *(option for option in options if not taken.intersection(option.opts))]
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            add_options(inner, options)


# -- making them ------------------------------------------------------------------------------------------------------


def command(examples: str = "", **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a command of a function; its help begins with `examples`."""
    return click.command(cls=Command, examples=examples, **attributes)


def group(examples: str = "", **attributes: Any) -> Callable[[Callable[..., Any]], Group]:
    """Make a group of a function; without a command below it, the function itself is what is done."""
    return click.group(cls=Group, examples=examples, **attributes)
