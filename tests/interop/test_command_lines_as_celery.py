"""The list of Celery's commands and options that the tests go by is what Celery itself says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

LIST = """
import json

import click
from celery.bin.celery import celery

found = {}


def walk(command, line):
    options = [param for param in command.params if isinstance(param, click.Option)]
    found[line] = [" ".join(sorted({*option.opts, *option.secondary_opts})) for option in options]
    if isinstance(command, click.Group):
        for name, inner in sorted(command.commands.items()):
            walk(inner, f"{line} {name}")


walk(celery, "celery")
print(json.dumps(found))
"""


def test_the_stored_list_of_celerys_options_is_celerys(celery_python: Path) -> None:
    done = subprocess.run([celery_python, "-c", LIST], capture_output=True, text=True, check=True)
    stored = json.loads((Path(__file__).parents[1] / "compat" / "celery-options.json").read_text())
    assert json.loads(done.stdout) == stored
