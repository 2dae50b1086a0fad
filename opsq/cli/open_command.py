"""Commands that take options of the program's own.

The app is loaded for them only when a command line has an option that the command does not know.
"""

from __future__ import annotations

from typing import Any

import click

from opsq.cli.context import Context
from opsq.cli.frame import Command
from opsq.cli.user_options import options_of


class Open(Command):
    """A command that takes options of the program's own: those under its name, and those under `preload`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Learn the program's options if there is one that is not known, then parse."""
        if (told := self._told(ctx, list(args))) is not None:
            context = ctx.ensure_object(Context)
            for name in ("workdir", "config", "app"):
                if told.get(name) is not None:
                    context.take(name, told[name])
            known = {option for param in self.params for option in (*param.opts, *param.secondary_opts)}
            own = options_of(context.loaded_app, str(self.name))
            self.params = [*self.params, *(option for option in own if known.isdisjoint(option.opts))]
        rest = super().parse_args(ctx, args)
        if told is not None:
            names = {option.name for option in options_of(ctx.ensure_object(Context).loaded_app, "")}
            ctx.ensure_object(Context).flags.update({name: ctx.params[name] for name in names & ctx.params.keys()})
        return rest

    def _told(self, ctx: click.Context, words: list[str]) -> dict[str, Any] | None:
        """What is said by options that are known, if others are there that are not."""
        parser = self.make_parser(ctx)
        parser.ignore_unknown_options = True
        try:
            told, left, _order = parser.parse_args(words)
        except click.UsageError:  # told when it is parsed in earnest
            return None
        return told if any(word.startswith("-") and word not in ("-", "--") for word in left) else None
