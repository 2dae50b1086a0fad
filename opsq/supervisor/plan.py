"""What is to run: programs as values, read from tables in supervisord's words; a plan is all of them and their app."""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from opsq.exceptions import ImproperlyConfigured
from opsq.runtime.spawn import run_as

_VARIABLE = re.compile(r"%\(ENV_(\w+)\)s")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
RESTARTS = {True: "always", False: "never", "unexpected": "unexpected", "true": "always", "false": "never"}
#: The name under which the supervisor's own log is kept, and the one that means every program.
RESERVED = ("opsq", "all")


@dataclass(frozen=True, slots=True)
class Answer:
    """A program is ready when it answers `expect` to `send` on a Unix socket."""

    socket: str
    send: str
    expect: str


@dataclass(frozen=True, slots=True)
class Program:
    """One program: what is executed, and what happens when it ends. The words are supervisord's."""

    name: str
    command: tuple[str, ...]
    directory: str
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    umask: int = -1
    group: str | None = None
    autostart: bool = True
    autorestart: str = "unexpected"
    exitcodes: tuple[int, ...] = (0,)
    startsecs: float = 1.0
    startretries: int = 3
    stopsignal: int = signal.SIGTERM
    stopwaitsecs: float = 10.0
    priority: int = 999
    depends_on: Mapping[str, str] = field(default_factory=dict)
    ready: str = "running"
    answer: Answer | None = None
    log_max_bytes: int = 50_000_000
    log_backups: int = 10

    def to_data(self) -> dict[str, Any]:
        """As JSON can carry it."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """What `to_data` made."""
        answer = data.get("answer")
        return cls(
            **{
                **data,
                "command": tuple(data["command"]),
                "exitcodes": tuple(data["exitcodes"]),
                "answer": Answer(**answer) if answer else None,
            }
        )


@dataclass(frozen=True, slots=True)
class Broker:
    """The broker of the app; kept for those who ask the supervisor what waits, it never connects itself."""

    url: str
    key_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """All programs, the app that ours work for (what `-A` said, or None), and its broker."""

    app: str | None = None
    programs: Mapping[str, Program] = field(default_factory=dict)
    broker: Broker | None = None

    def to_data(self) -> dict[str, Any]:
        """As JSON can carry it."""
        programs = [program.to_data() for program in self.programs.values()]
        return {"app": self.app, "programs": programs, "broker": asdict(self.broker) if self.broker else None}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """What `to_data` made."""
        programs = [Program.from_data(each) for each in data["programs"]]
        broker = Broker(**data["broker"]) if data["broker"] else None
        return cls(data["app"], {program.name: program for program in programs}, broker)

    def with_more(self, newer: Plan) -> Plan:
        """This plan and what a newer one adds or changes."""
        return Plan(newer.app or self.app, {**self.programs, **newer.programs}, newer.broker or self.broker)

    def changed_in(self, newer: Plan) -> list[str]:
        """Names of the programs that both plans have and that differ."""
        mine = self.programs
        return [name for name, program in newer.programs.items() if name in mine and mine[name] != program]

    def needed_by(self, names: Iterable[str]) -> set[str]:
        """The programs of these names and all that they depend on."""
        needed: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in needed and name in self.programs:
                needed.add(name)
                waiting.extend(self.programs[name].depends_on)
        return needed


def check(plan: Plan) -> None:
    """Refuse what can never be started: dependencies that do not exist or go in a circle."""
    for program in plan.programs.values():
        for other, condition in program.depends_on.items():
            if other not in plan.programs:
                raise _wrong(program.name, f"it depends on {other!r}, which is no program here")
            if condition not in ("started", "ready"):
                raise _wrong(program.name, f'{other!r} can be "started" or "ready", not {condition!r}')
            if program.name in plan.needed_by([other]):
                raise _wrong(program.name, f"it and {other!r} depend on each other")


def program_from_table(name: str, table: Mapping[str, Any], folder: Path, base: Program | None = None) -> Program:
    """The program that a `[programs.NAME]` table means; with `base` the changes that it makes to one of ours."""
    if not _NAME.fullmatch(name) or name in RESERVED:
        raise _wrong(name, 'a name is made of letters, digits, . _ and -, and is not "opsq" or "all"')
    if base is None and "command" not in table:
        raise _wrong(name, "its 'command' is missing")
    values = {key: _value(name, key, value, folder) for key, value in table.items()}
    if "user" in values and values.get("ready") == "notify":
        raise _wrong(name, "a program of another user cannot reach the socket on which it would say that it is ready")
    if base is None:
        return Program(**{"name": name, "directory": str(folder), **values})
    if "environment" in values:
        values["environment"] = {**base.environment, **values["environment"]}
    if "depends_on" in values:
        values["depends_on"] = {**base.depends_on, **values["depends_on"]}
    return replace(base, **values)


def _value(name: str, key: str, value: Any, folder: Path) -> Any:
    value = _expanded(name, value)
    try:
        return _READERS.get(key, _plain(key))(value, folder)
    except (ValueError, TypeError, KeyError) as error:
        raise _wrong(name, f"{key} = {value!r} cannot be: {error.args[0] if error.args else error}") from None
    except ImproperlyConfigured as error:
        raise _wrong(name, error.why) from None


def _expanded(name: str, value: Any) -> Any:
    """`%(ENV_X)s` in strings, also in those of lists and tables."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _variable(name, match[1]), value)
    if isinstance(value, list):
        return [_expanded(name, each) for each in value]
    if isinstance(value, dict):
        return {key: _expanded(name, each) for key, each in value.items()}
    return value


def _variable(name: str, variable: str) -> str:
    if variable not in os.environ:
        raise _wrong(name, f"the variable {variable} is not set")
    return os.environ[variable]


def _plain(key: str) -> Any:
    kind = next(each.type for each in fields(Program) if each.name == key)
    wanted: Mapping[str, tuple[type, ...]] = {"float": (float, int), "int": (int,), "bool": (bool,)}
    allowed = wanted.get(str(kind), (str,))

    def read(value: Any, _folder: Path) -> Any:
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise ValueError(f"it must be {_KINDS[allowed[0]]}")
        if isinstance(value, int | float) and value < 0 and key != "priority":
            raise ValueError("it must not be negative")
        return value

    return read


_KINDS: Mapping[type, str] = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}


def _command(value: Any, _folder: Path) -> tuple[str, ...]:
    words = shlex.split(value) if isinstance(value, str) else value
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise ValueError("it must be a list of words, or one line")
    return tuple(words)


def _directory(value: Any, folder: Path) -> str:
    path = folder / Path(value).expanduser()
    if not path.is_dir():
        raise ValueError("there is no such directory")
    return str(path)


def _strings(value: Any, _folder: Path) -> dict[str, str]:
    if not isinstance(value, dict) or any(isinstance(each, dict | list) for each in value.values()):
        raise ValueError("it must be a table of names and texts")
    return {str(key): str(each) for key, each in value.items()}


def _user(value: Any, _folder: Path) -> str:
    run_as(str(value))
    return str(value)


def _exitcodes(value: Any, _folder: Path) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(isinstance(each, int) for each in value):
        raise ValueError("it must be a list of numbers")
    return tuple(value)


def _autorestart(value: Any, _folder: Path) -> str:
    if not isinstance(value, bool | str) or value not in RESTARTS:
        raise ValueError('it must be true, false or "unexpected"')
    return RESTARTS[value]


def _ready(value: Any, _folder: Path) -> str:
    if value not in ("running", "notify"):
        raise ValueError('it must be "running" or "notify"')
    return str(value)


def read_signal(value: Any) -> int:
    """A signal by name (TERM, SIGTERM) or number. Raises ValueError."""
    text = str(value).upper()
    try:
        if text.isdigit():
            return int(signal.Signals(int(text)))
        return int(signal.Signals["SIG" + text.removeprefix("SIG")])
    except (KeyError, ValueError):
        raise ValueError(f"{value!r} is no signal") from None


_READERS: Mapping[str, Any] = {
    "command": _command,
    "directory": _directory,
    "environment": _strings,
    "depends_on": _strings,
    "user": _user,
    "umask": lambda value, _folder: int(str(value), 8),
    "exitcodes": _exitcodes,
    "autorestart": _autorestart,
    "stopsignal": lambda value, _folder: read_signal(value),
    "ready": _ready,
}


def _wrong(name: str, why: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"cannot use the program {name!r}", why=why)
