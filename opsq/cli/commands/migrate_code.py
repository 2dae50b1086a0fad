"""`opsq migrate-code`: a Celery project's imports become opsq's; shown as a diff, or written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from opsq.cli.codemod.project import File, files
from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.cli.output import Output, harmless
from opsq.exceptions import UsageError

EXAMPLES = """
opsq migrate-code .
opsq migrate-code . > imports.patch
opsq migrate-code --write src tests
"""

_COLORS = {"+": "green", "-": "red", "@": "cyan"}


@command(EXAMPLES)
@click.argument("paths", nargs=-1, metavar="PATH...", type=click.Path(path_type=Path))
@click.option("--write", is_flag=True, help="Change the files; without it they are only shown.")
@pass_context
def migrate_code(context: Context, paths: tuple[Path, ...], write: bool) -> None:
    """Change the imports of `celery` and `kombu` in Python files to `opsq`.

    Without --write the change is shown as a diff on stdout. What cannot be moved, and lines in other files that say
    celery (requirements, unit files, Dockerfiles, ...), are listed with the reason, or with the line to write instead;
    they are never touched.
    """
    out = context.out
    for path in paths:
        if not path.exists():
            raise UsageError(f"cannot migrate {path}", why="there is no such file or folder")
    if not paths:
        raise UsageError("no PATH", hint="opsq migrate-code . shows what would change in this folder")
    found = [file for path in paths for file in files(path)]
    changed = [file for file in found if file.new is not None]
    if write:
        for file in changed:
            file.write()
    if out.json:
        out.document({"files": [_data(file) for file in found], "written": write})
        return
    if not write:
        for file in changed:
            _show(out, file)
    _tell(out, found, write)


def _show(out: Output, file: File) -> None:
    """Painted for a terminal; else byte for byte what `patch` needs."""
    if not out.terminal:
        sys.stdout.flush()
        sys.stdout.buffer.write(file.diff().encode(file.encoding))
        sys.stdout.buffer.flush()
        return
    for line in file.diff().split("\n")[:-1]:
        head = line.startswith(("+++", "---"))
        text = harmless(line.rstrip("\r"))
        out.line(click.style(text, fg=None if head else _COLORS.get(line[:1]), bold=head) if out.rich else text)


def _tell(out: Output, found: list[File], written: bool) -> None:
    """What was not touched, and a last line with the sum."""
    for file in found:
        for left in file.left:
            out.say(f"{file.path}:{left.line}: {left.text}\n    stays: {left.why}")
        for line in file.lines:
            out.say(
                f"{file.path}:{line.number}: {line.text}\n    {f'write: {line.instead}' if line.instead else line.why}"
            )
        if file.trouble:
            out.say(f"{file.path}: not read: {file.trouble}")
    changed = [file for file in found if file.new is not None]
    imports = sum(file.imports for file in changed)
    if not changed:
        out.say("no import of celery or kombu to change")
        return
    what = f"{imports} import{'s' * (imports != 1)} in {len(changed)} file{'s' * (len(changed) != 1)}"
    out.say(f"{what} changed" if written else f"{what} would change: --write does it")


def _data(file: File) -> dict[str, Any]:
    return {
        "path": str(file.path),
        "imports": file.imports,
        "diff": file.diff() or None,
        "left": [{"line": each.line, "text": each.text, "why": each.why} for each in file.left],
        "elsewhere": [
            {"line": each.number, "text": each.text, "instead": each.instead, "why": each.why or None}
            for each in file.lines
        ],
        "trouble": file.trouble or None,
    }
