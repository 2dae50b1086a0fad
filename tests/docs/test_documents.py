"""Nothing in the documentation names a command, an option or a file that does not exist."""

from __future__ import annotations

import ast
from pathlib import Path

import click
import pytest
from support import documents

from opsq.cli.context import Context
from opsq.cli.main import COMMANDS, cli

EVERY = [pytest.param(document, id=str(document.relative_to(documents.ROOT))) for document in documents.DOCUMENTS]


def parse(words: list[str]) -> None:
    """Read a command line as `opsq` does, without running it. Raises click's or our UsageError."""
    context: click.Context = cli.make_context("opsq", list(words), obj=Context())
    command: click.Command = cli
    while isinstance(command, click.Group) and (rest := [*context._protected_args, *context.args]):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command, context = found, found.make_context(name, rest, parent=context)


@pytest.mark.parametrize("document", EVERY)
def test_its_command_lines_can_be_read(document: Path) -> None:
    for words in documents.commands(document):
        parse(words)


@pytest.mark.parametrize("document", EVERY)
def test_its_python_is_python(document: Path) -> None:
    for block in documents.blocks(document, "python"):
        ast.parse(block)


@pytest.mark.parametrize("document", EVERY)
def test_its_links_lead_somewhere(document: Path) -> None:
    missing = [link for link in documents.links(document) if not (document.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_examples_of_a_commands_help_can_be_read(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    text = command.get_help(click.Context(command, info_name=name))
    assert text.startswith("Examples:")
    lines = text.partition("\n\n")[0].splitlines()[1:]
    examples = [line.strip() for line in lines if line.strip().startswith("opsq ")]
    assert examples
    for line in examples:
        for words in documents.words_after_opsq(line):
            parse(words)
