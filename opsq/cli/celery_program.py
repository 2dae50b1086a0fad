"""`python -m opsq.cli.celery_program celery WORDS`: how a file of programs runs a command of Celery's.

If the app that it names is opsq's, the process becomes `opsq WORDS`; if it is Celery's, it becomes what was written.
The imports of the app's module tell which it is, and nobody's code is run for that; only where they do not, the app is
imported to see.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from opsq.cli import flower
from opsq.cli.app_owner import owner
from opsq.runtime import notify
from opsq.supervisor.celery_commands import NOTE, RUNS, CeleryCommand, read

#: Set for a process in the environment of another interpreter: it is the one that the command names.
_THERE = "OPSQ_CELERY_PROGRAM"


def main(argv: Sequence[str]) -> NoReturn:
    """Become what the command means."""
    command = read(argv)
    assert command is not None, argv
    program = shutil.which(argv[0])
    interpreter = _interpreter(program) if program is not None else None
    if os.environ.pop(_THERE, None) is None and interpreter is not None and not _is_this(interpreter):
        if _has(interpreter, "opsq"):
            os.execve(interpreter, [interpreter, "-m", "opsq.cli.celery_program", *argv], {**os.environ, _THERE: "1"})
        if len(command.program) == 1 or _has(interpreter, "celery"):
            _become_celerys(argv)
    _go_where_it_is_told(command)
    app = command.app or os.environ.get("APP")
    there = program is not None if len(command.program) == 1 else find_spec("celery") is not None
    if (owner(app) if app else "celery" if there else "opsq") == "celery" and there:
        _become_celerys(argv)
    _become_ours(command, app)


def _become_ours(command: CeleryCommand, app: str | None) -> NoReturn:
    words, environment, note = list(command.words), dict(os.environ), ""
    if app and command.app is None:
        environment["OPSQ_APP"] = app
    if command.name == "flower":
        words, added, note = flower.carried_over(words, os.environ)
        environment |= added
        if note:
            print(f"opsq: {note}", file=sys.stderr, flush=True)
    notify.notify(f"{RUNS}=opsq\n{NOTE}={note}")
    argv = [sys.executable, "-m", "opsq", *words]
    os.execve(argv[0], argv, environment)


def _become_celerys(argv: Sequence[str]) -> NoReturn:
    notify.notify(f"{RUNS}=celery")
    os.execvp(argv[0], list(argv))


def _go_where_it_is_told(command: CeleryCommand) -> None:
    """The app is looked for from the folder that `--workdir` names, and from the program's own."""
    folder = command.value("--workdir") or "."
    sys.path.insert(0, os.path.abspath(folder))


def _interpreter(program: str) -> str | None:
    """Python itself, or the one that the first lines of a script name."""
    if Path(program).name.startswith("python"):
        return program
    try:
        with open(program, "rb") as file:
            lines = file.read(1024).decode(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines[:2]:  # a long path stands in the second line, behind the shell's exec
        for word in line.removeprefix("#!").replace("'''exec'", "").replace('"', " ").split()[:2]:
            if Path(word).name.startswith("python"):
                return shutil.which(word)
    return None


def _has(interpreter: str, package: str) -> bool:
    """Whether an interpreter knows a package; it is not imported."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([interpreter, "-c", code], capture_output=True, cwd="/", check=False).returncode == 0


def _is_this(interpreter: str) -> bool:
    """Whether it is the interpreter of this environment, by whichever of its names."""
    return Path(interpreter).absolute().parent == Path(sys.executable).absolute().parent


if __name__ == "__main__":
    main(sys.argv[1:])
