"""Kinds of values, and the options that several commands have.

Every command line loads this module, so what only some need is imported where it is used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from opsq.exceptions import UsageError

DEFAULT_LIMIT = 100


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds, written as 90, 5m, 1h30m or 250ms."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds."""
        from opsq.utils.time import parse_duration

        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Json(click.ParamType):  # type: ignore[type-arg]
    """A JSON text of one kind (`list` or `dict`)."""

    name = "json"

    def __init__(self, kind: type, example: str) -> None:
        self.kind, self.example = kind, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        """The value. Raises UsageError with one clear line."""
        import json

        what = (param.human_readable_name if param else "a value").upper()
        wanted = "a list" if self.kind is list else "an object"
        try:
            found = json.loads(value)
        except ValueError as error:
            raise UsageError(f"cannot read {what} as JSON", why=str(error), hint=self._hint(wanted)) from None
        except RecursionError:
            raise UsageError(f"cannot read {what} as JSON", why="it is nested too deep") from None
        if not isinstance(found, self.kind):
            raise UsageError(f"{what} must be {wanted} in JSON", why=f"it is {value}", hint=self._hint(wanted))
        return found

    def _hint(self, wanted: str) -> str:
        return f"write {wanted} in single quotes, for example {self.example}"


def named_signal(name: str) -> int:
    """The number of a signal. Raises UsageError."""
    from opsq.runtime.process import signal_number

    try:
        return signal_number(name)
    except ValueError as error:
        raise UsageError(str(error), hint="TERM, HUP, USR1, ... or a number") from None


def names(_context: click.Context, _option: click.Parameter, value: str | Sequence[str] | None) -> list[str]:
    """For an option (`callback`): names with commas between them, the option given once or several times."""
    values = [value] if isinstance(value, str) else value or ()
    return [name for each in values for name in each.split(",") if name]


def options(several: Sequence[Callable[..., Any]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that gives a command several options, which its help shows in this order."""

    def give(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(several):
            function = option(function)
        return function

    return give


def limit_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--limit N`: how many are shown."""
    return click.option(
        "--limit",
        metavar="N",
        type=click.IntRange(0),
        default=DEFAULT_LIMIT,
        help=f"Show at most N ({DEFAULT_LIMIT}); 0 = all.",
    )(function)


def limited(items: Sequence[Any], limit: int) -> Sequence[Any]:
    """As many as `--limit` allows."""
    return items[:limit] if limit else items


def confirm_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--yes` and `--dry-run`: what every command has that destroys."""
    function = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")(function)
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(function)


def confirmed(question: str, yes: bool) -> bool:
    """Whether to go on: `--yes`, or the answer of whoever sits at the terminal. Raises UsageError if nobody does."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError("nothing was done", why=f"nobody is here to answer: {question}", hint="add --yes")
    return click.confirm(question, err=True)
