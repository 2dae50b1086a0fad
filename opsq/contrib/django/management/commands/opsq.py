"""`manage.py opsq ...`: opsq's command line with Django's settings loaded, and this project's app named."""

from __future__ import annotations

from argparse import REMAINDER, ArgumentParser
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from opsq.cli import main
from opsq.cli.context import Context
from opsq.contrib.django.project import name_app

#: Options that manage.py has taken already, each with a value.
_TAKEN = ("--settings", "--pythonpath")


class Command(BaseCommand):
    """All words after `opsq` are the command line's own."""

    help = "opsq's command line, with this project's settings and app: manage.py opsq worker -c 4"
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """From the terminal: exit codes and errors are those of `opsq`."""
        main.main(list(_left(argv[2:])), Context(home=name_app()))

    def print_help(self, prog_name: str, subcommand: str) -> None:  # noqa: ARG002 (Django's signature)
        """`manage.py help opsq`."""
        main.run(["--help"], Context())

    def add_arguments(self, parser: ArgumentParser) -> None:
        """For `call_command("opsq", "queues", "--json")`."""
        parser.add_argument("words", nargs=REMAINDER)

    def handle(self, *_args: Any, words: Sequence[str], **_options: Any) -> None:
        """From a program. Raises CommandError with the exit code when it fails."""
        if code := main.run(list(words), Context(home=name_app())):
            raise CommandError(f"opsq ended with {code}", returncode=code)


def _left(words: Sequence[str]) -> Iterator[str]:
    taken = False
    for word in words:
        if taken:
            taken = False
        elif word in _TAKEN:
            taken = True
        elif not word.startswith(tuple(f"{name}=" for name in _TAKEN)):
            yield word
