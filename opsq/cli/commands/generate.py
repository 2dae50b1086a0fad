"""`opsq generate systemd|supervisord`: what starts this project, or one of our processes, after a reboot."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.exceptions import UsageError

EXAMPLES = """
opsq generate systemd
opsq -A proj generate systemd worker beat
opsq generate supervisord
"""


@command(EXAMPLES)
@click.argument("kind", type=click.Choice(["systemd", "supervisord"]))
@click.argument("names", nargs=-1, metavar="[worker|beat|monitor|agent]...")
@click.option("-o", "--output", metavar="DIR", type=click.Path(path_type=Path), help="Write files there.")
@click.option("--user", metavar="USER", help="Who runs it; default: you.")
@pass_context
def generate(context: Context, kind: str, names: tuple[str, ...], output: Path | None, user: str | None) -> None:
    """Print units that run this project as `opsq up` does, or the named processes of ours alone."""
    from opsq.supervisor import service_files

    for name in names:
        if name not in service_files.NAMES:
            raise UsageError(f"no process {name!r}", hint=f"there are: {', '.join(service_files.NAMES)}")
    project = service_files.Project(
        opsq=_executable(),
        folder=os.getcwd(),
        user=user or _myself(),
        app=context.app_spec,
        state_dir=os.environ.get("OPSQ_STATE_DIR"),
    )
    for name, text in service_files.files(kind, project, names).items():
        if output is None:
            context.out.line(text.rstrip("\n"))
        else:
            (output / name).write_text(text)
            context.out.say(f"wrote {output / name}")


def _executable() -> str:
    """The installed command, by its whole path."""
    beside = Path(sys.executable).with_name("opsq")
    found = str(beside) if beside.exists() else shutil.which("opsq")
    return os.path.abspath(found) if found else f"{sys.executable} -m opsq"


def _myself() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name
