"""`opsq import`: a supervisord.conf as an opsq.toml, for those who want to go on with that."""

from __future__ import annotations

from pathlib import Path

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command

EXAMPLES = """
opsq import supervisord.conf
opsq import /etc/supervisor/supervisord.conf --output opsq.toml
"""


@command(EXAMPLES)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write it there, if it is new.")
@pass_context
def import_(context: Context, file: Path, output: Path | None) -> None:
    """Print the tables of opsq.toml that a supervisord.conf means. `opsq up -c FILE` runs it without any of this.

    Variables and numbers are filled in as they are now.
    """
    from opsq.supervisor import supervisord_file, toml_text

    found = supervisord_file.read(file, Path.cwd())
    for note in found.notes:
        context.out.say(f"{file}: {note}")
    text = toml_text.text(found.programs.values())
    if output is None:
        context.out.line(text.rstrip("\n"))
        return
    with output.open("x") as new:
        new.write(text)
    context.out.say(f"wrote {output}")
