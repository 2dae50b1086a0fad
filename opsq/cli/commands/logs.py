"""`opsq logs`: what programs wrote, read from their log files (works without a supervisor), or one task, from Redis."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.exceptions import UsageError
from opsq.runtime.logfile import Reader
from opsq.runtime.statedir import StateDir

EXAMPLES = """
opsq logs
opsq logs worker -n 20
opsq logs -f
opsq logs opsq
opsq logs --task 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11 -f
"""
_OWN = "opsq"
#: What the log of a program's standard error is called, if it has one.
_ERRORS = ".stderr"
_PAUSE_S = 0.1
_COLOURS = ("cyan", "yellow", "green", "magenta", "blue")


@command(EXAMPLES)
@click.argument("names", nargs=-1, metavar="[PROGRAM]...")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=100, metavar="N", show_default=True, help="The last N of each."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("--all", "everything", is_flag=True, help="The supervisor's own log (opsq), too.")
@click.option("--task", "task_id", metavar="ID", help="What one task logged and printed, wherever it runs or ran.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="json: each line as an object.")
@click.option("--from", "places", hidden=True, help="JSON: where in each program's log to begin.")
@pass_context
def logs(
    context: Context,
    names: tuple[str, ...],
    lines: int,
    follow: bool,
    everything: bool,
    task_id: str | None,
    log_format: str,
    places: str | None,
) -> None:
    """Show what programs wrote. With more than one program each line begins with its name.

    With --task: the lines of one task, which workers keep for a day; -f ends when it has ended.
    """
    if task_id is not None:
        if names or everything:
            raise UsageError("a task and programs do not fit together", hint=f"opsq logs --task {task_id}")
        from opsq.cli import task_lines

        task_lines.show(context, task_id, lines, follow, log_format == "json" or context.out.json)
        return
    state = context.state_dir
    chosen = _chosen(state, names, everything, follow)
    several = len(chosen) > 1 or (follow and not names)
    show: Display = JsonDisplay() if log_format == "json" or context.out.json else TextDisplay(context, several)
    readers = {name: Reader(state.log / f"{name}.log") for name in chosen}
    begin = json.loads(places) if places else {}
    for name, reader in readers.items():
        if places:
            reader.begin_at(begin.get(name, 0))
        else:
            show.write(name, reader.last_lines(lines))
    if follow:
        _follow(state, readers, show, not names, everything)
    for name, reader in readers.items():
        if reader.partial:
            show.write(name, [reader.partial])


class Display(Protocol):
    """How lines are shown."""

    def write(self, name: str, lines: Sequence[bytes]) -> None:
        """Write lines of one program."""


class JsonDisplay:
    """Each line an object: the program, and what it wrote; what was JSON before keeps its names."""

    def write(self, name: str, lines: Sequence[bytes]) -> None:
        """Write lines of one program."""
        for line in lines:
            sys.stdout.write(json.dumps({"program": name, **_said(line)}) + "\n")
        sys.stdout.flush()


def _said(line: bytes) -> Mapping[str, Any]:
    if line.startswith(b"{"):
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if isinstance(said, dict):
            return said
    return {"message": line.decode(errors="replace")}


class TextDisplay:
    """Lines as they are, with the program's name in front where there are several."""

    def __init__(self, context: Context, named: bool) -> None:
        self._named, self._coloured = named, context.out.rich
        self._colours: dict[str, str] = {}

    def write(self, name: str, lines: Sequence[bytes]) -> None:
        """Write lines of one program."""
        if not lines:
            return
        front = self._front(name)
        sys.stdout.buffer.write(b"".join(front + line + b"\n" for line in lines))
        sys.stdout.buffer.flush()

    def _front(self, name: str) -> bytes:
        if not self._named:
            return b""
        if not self._coloured:
            return f"{name} | ".encode()
        colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
        return click.style(f"{name} | ", fg=colour).encode()


def ends_of_logs(state: StateDir) -> str:
    """Where all logs end now, for `--from`."""
    logs = {name: state.log / f"{name}.log" for name in _known(state, own=True)}
    return json.dumps({name: log.stat().st_size for name, log in logs.items() if log.exists()})


def _follow(state: StateDir, readers: dict[str, Reader], show: Display, any_program: bool, own: bool) -> None:
    """Until somebody has enough; on SIGTERM what is there is shown first."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, _frame: ended.append(signum))
    while True:
        last_round = bool(ended)
        if any_program:
            for name in _known(state, own):
                readers.setdefault(name, Reader(state.log / f"{name}.log"))
        for name, reader in readers.items():
            show.write(name, reader.more())
        if last_round:
            return
        time.sleep(_PAUSE_S)


def _chosen(state: StateDir, names: Sequence[str], own: bool, follow: bool) -> list[str]:
    known = _known(state, own)
    for name in names:
        if not (state.log / f"{name}.log").is_file() or "/" in name:
            raise UsageError(f"no log of {name!r} here", hint=f"there are: {', '.join(known) or 'none'}")
    if not names and not known and not follow:
        raise UsageError("no logs here", why=f"looked in {state.log}", hint="opsq up")
    named = [each for name in names for each in (name, name + _ERRORS) if (state.log / f"{each}.log").is_file()]
    return list(dict.fromkeys(named)) or known


def _known(state: StateDir, own: bool) -> list[str]:
    """Who has a log here; of several that write to one file the first stands for all."""
    found: dict[Path, str] = {}
    for path in sorted(state.log.glob("*.log")):
        if own or path.stem != _OWN:
            found.setdefault(path.resolve() if path.is_symlink() else path, path.stem)
    return list(found.values())
