"""Writes docs/benchmarks.md: each program's tables as it has measured them, with machine and versions.

    python -m benchmarks.document drain --celery /path/to/python     one section anew, with that program's own options
    python -m benchmarks.document --list                             the sections there are

Nothing in that file is written by hand: a figure comes with the command that made it and with the load it was made
under.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "benchmarks.md"
#: The sections in their order: program (and, after a stroke, the server it is run with), title.
SECTIONS: Mapping[str, str] = {
    "peers": "Beside the others",
    "drain": "How fast a queue is drained",
    "drain/private": "How fast a queue is drained that is kept on disk",
    "scaling": "More children",
    "pools": "The pools",
    "django_results": "Results in Django's database",
    "enqueue": "How fast tasks are sent",
    "roundtrip": "From the call to its result",
    "footprint": "Start, memory, rest",
    "fairness": "Long and short tasks mixed",
    "promptness": "Promptness",
    "size": "Long queues, millions of tasks",
    "crowd": "Many workers on one Redis",
    "idle": "An idle worker",
    "monitor": "With a monitor attached",
    "events": "What events cost",
    "cli": "The command line",
    "hosts": "Commands on many hosts",
    "beat_failover": "When a beat is killed",
}
HEAD = """# Benchmarks

Written by `python -m benchmarks.document`, section by section; what each program does, and how: `benchmarks/`. A figure
is worth something only beside the others of its own table.
"""


def measured(name: str, options: Sequence[str]) -> str:
    """The section of a program: it is run now."""
    program, _, server = name.partition("/")
    options = [*(["--server", server] if server else []), *options]
    command = [sys.executable, "-m", f"benchmarks.{program}", *options, "--json"]
    told = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    about = (importlib.import_module(f"benchmarks.{program}").__doc__ or "").split("\n\n")[0].replace("\n", " ")
    day = time.strftime("%Y-%m-%d", time.gmtime(told["time"]))
    shown = " ".join(word if "/" not in word else "…" for word in options)
    ran = f"`python -m benchmarks.{program}{' ' + shown if shown else ''}`"
    parts = [
        f"## {SECTIONS[name]}",
        about,
        f"{ran}, {day}, {told['machine']}. {told['settings']}.",
        table(told["rows"]),
        *told["notes"],
    ]
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table of Markdown; tables of other columns follow apart."""
    groups: list[tuple[tuple[str, ...], list[Mapping[str, Any]]]] = []
    for row in rows:
        names = tuple(row)
        if not groups or groups[-1][0] != names:
            groups.append((names, []))
        groups[-1][1].append(row)
    return "\n\n".join(_one_table(names, some) for names, some in groups)


def _one_table(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    right = [isinstance(rows[0][name], int | float) for name in names]
    lines = [[name.replace("_", " ") for name in names], ["--:" if each else "---" for each in right]]
    lines += [[_cell(row[name]) for name in names] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def sections(text: str) -> dict[str, str]:
    """The sections that the document has: name of the program -> text."""
    names = {title: name for name, title in SECTIONS.items()}
    found = {}
    for part in text.split("\n## ")[1:]:
        title = part.partition("\n")[0]
        if title in names:
            found[names[title]] = "## " + part.rstrip() + "\n"
    return found


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", required=False, type=click.Choice(list(SECTIONS)))
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.option("--list", "list_them", is_flag=True, help="The sections there are.")
def main(name: str | None, options: tuple[str, ...], list_them: bool) -> None:
    """Measure with one program, and put what it found into the document."""
    if list_them or name is None:
        print("\n".join(f"{each:14} {title}" for each, title in SECTIONS.items()))
        return
    there = sections(DOCUMENT.read_text()) if DOCUMENT.exists() else {}
    there[name] = measured(name, options)
    DOCUMENT.write_text("\n".join([HEAD, *(there[each] for each in SECTIONS if each in there)]))


if __name__ == "__main__":
    main()
