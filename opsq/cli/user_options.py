"""Options that a program adds to commands of its own accord: `app.user_options`, as in Celery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from opsq.app.base import App

#: Options of all commands that take any.
PRELOAD = "preload"


def with_defaults(app: App, command: str, given: dict[str, Any]) -> dict[str, Any]:
    """What was given, with the defaults of the program's own options that were not."""
    if not app.user_options:
        return given
    return {**{str(option.name): option.default for option in options_of(app, command)}, **given}


def options_of(app: App, command: str) -> list[click.Option]:
    """The program's own options for a command."""
    mine = {*app.user_options.get(command, ()), *app.user_options.get(PRELOAD, ())}
    return sorted(mine, key=lambda option: str(option.name))
