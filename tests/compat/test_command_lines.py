"""Every command of Celery 5.7 with each of its options is taken, or it is said why not and what takes its place."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from opsq.cli.context import Context
from opsq.cli.main import CELERYS_WORDS, SHARED, cli, run

#: Command line -> names of its options, as Celery's own commands have them (the interop tests compare).
CELERYS = json.loads(Path(__file__).with_name("celery-options.json").read_text())
NO_NODES = "`opsq status` is of programs, queues and hosts; `opsq inspect ping` asks nodes"
#: What is not taken, and why.
NOT_TAKEN = {
    "celery status --timeout -t": NO_NODES,
    "celery status --destination -d": NO_NODES,
    "celery status --json -j": "it is --json alone",
}
OPTIONS = [(line, option) for line, options in CELERYS.items() for option in options]


def command_of(line: str) -> click.Command | None:
    """The command of opsq that these words lead to."""
    found: click.Command | None = cli
    for word in line.split()[1:]:
        found = found.get_command(click.Context(found), word) if isinstance(found, click.Group) else None
    return found


@pytest.mark.parametrize("line", CELERYS)
def test_a_command_of_celery_is_there_or_says_what_takes_its_place(
    line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if command_of(line) is not None:
        return
    words = line.split()[1:]
    assert words[0] in CELERYS_WORDS
    assert run([*words, "-x", "y"], Context()) == 2
    said = capfd.readouterr().err
    assert said.startswith(f"opsq: {words[0]} is not here: use `opsq ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(("line", "option"), OPTIONS, ids=lambda text: str(text).replace(" ", "_"))
def test_an_option_of_celery_is_taken_or_has_a_reason(line: str, option: str) -> None:
    command = command_of(line)
    if command is None:
        assert line.split()[1] in CELERYS_WORDS
        return
    known = {name for param in (*command.params, *SHARED) for name in (*param.opts, *param.secondary_opts)}
    if not known.issuperset(option.split()):
        assert NOT_TAKEN.get(f"{line} {option}"), "neither taken nor named with a reason"
