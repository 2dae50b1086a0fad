"""Commands of Celery's in a file of programs: recognised by their words alone, and run by `opsq.cli.celery_program`.

Whose the app is, is decided in the program's own process when it starts: no user's code is imported here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from opsq.supervisor.plan import Program

#: What a program says of itself on the notification socket: "opsq" or "celery".
RUNS = "X_OPSQ_RUNS"
#: What it could not carry over, in words.
NOTE = "X_OPSQ_NOTE"
#: Celery's commands and those of our programs that do the same.
ROLES: Mapping[str, str] = {"worker": "worker", "beat": "beat", "flower": "monitor"}
_BY_WAY_OF = (sys.executable, "-m", "opsq.cli.celery_program")
_PYTHON = re.compile(r"python(\d+(\.\d+)?)?")
_PYTHON_FLAGS_WITH_VALUE = ("-W", "-X")
#: Options of every command, which may stand before its name, with a value.
_WITH_VALUE = ("-A", "--app", "-b", "--broker", "--result-backend", "--loader", "--config", "--workdir")
_PASSWORD = re.compile(r"(?<=://)[^/@\s]*@|(?<=basic_auth=)\S+|(?<=basic-auth=)\S+")


@dataclass(frozen=True, slots=True)
class CeleryCommand:
    """`celery WORDS`, or `python -m celery WORDS`: what stands before the words, and these."""

    program: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def name(self) -> str | None:
        """The name of the command, wherever options stand: worker, beat, ..."""
        words = iter(self.words)
        for word in words:
            if word in _WITH_VALUE:
                next(words, None)
            elif not word.startswith("-"):
                return word
        return None

    def value(self, *names: str) -> str | None:
        """What an option says, as `-A x`, `-Ax`, `--app x` or `--app=x`; the last one counts."""
        found = None
        words = iter(self.words)
        for word in words:
            if word in names:
                found = next(words, found)
                continue
            for name in names:
                short = name[:2] != "--"
                if word.startswith(name if short else f"{name}=") and not (short and word.startswith("--")):
                    found = word[len(name) + (not short) :]
        return found

    @property
    def app(self) -> str | None:
        """The app that `-A` names."""
        return self.value("-A", "--app")


def read(command: Sequence[str]) -> CeleryCommand | None:
    """What a command says if its program is called `celery`; None of any other."""
    if not command:
        return None
    name = PurePath(command[0]).name
    if name == "celery":
        return CeleryCommand(tuple(command[:1]), tuple(command[1:]))
    if not _PYTHON.fullmatch(name):
        return None
    at = 1
    while at < len(command) and command[at].startswith("-") and command[at] != "-m":
        at += 2 if command[at] in _PYTHON_FLAGS_WITH_VALUE else 1
    if tuple(command[at : at + 2]) != ("-m", "celery"):
        return None
    return CeleryCommand(tuple(command[: at + 2]), tuple(command[at + 2 :]))


def as_ours(program: Program, needs: Mapping[str, str]) -> Program:
    """The program as it is run: one of Celery's by way of ours, after what ours need; any other as it is."""
    if read(program.command) is None:
        return program
    return replace(program, command=(*_BY_WAY_OF, *program.command), depends_on={**needs, **program.depends_on})


def roles(commands: Iterable[Sequence[str]], app: str | None) -> set[str]:
    """Which of our own programs these commands take the place of, for this app."""
    found = set()
    for command in map(read, commands):
        if command is None or app is None or command.app is None or _package(command.app) != _package(app):
            continue
        if role := ROLES.get(command.name or ""):
            found.add(role)
        if command.name == "worker" and {"-B", "--beat"} & {*command.words}:
            found.add("beat")
    return found


def written(program: Program) -> CeleryCommand | None:
    """The command of Celery's that `as_ours` was given; None of any other program."""
    return read(program.command[len(_BY_WAY_OF) :]) if program.command[1:3] == _BY_WAY_OF[1:] else None


def told(program: Program, runs: str | None, note: str) -> dict[str, str | None]:
    """For `status`: what the file says (`written`), what runs (None: not known), a reason; without passwords."""
    command = written(program)
    if command is None:
        return {"written": None, "runs": None, "reason": None}
    says = _line((*command.program, *command.words))
    if runs == "opsq":
        reason = f"opsq for: {says}" + (f" ({note})" if note else "")
        return {"written": says, "runs": _line(("opsq", *command.words)), "reason": reason}
    if runs == "celery":
        return {"written": says, "runs": says, "reason": f"Celery's own: {says}"}
    as_another = f"as {program.user}: {says}" if program.user else None  # which cannot tell us who runs it
    return {"written": says, "runs": None, "reason": as_another}


def _line(words: Iterable[str]) -> str:
    return _PASSWORD.sub("**", " ".join(words))


def _package(spec: str) -> str:
    return spec.partition(":")[0].partition(".")[0]
