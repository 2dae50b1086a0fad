"""Programs from tables in supervisord's words: `[programs.NAME]` of opsq.toml, and what a supervisord file was read to.

A table may mean several programs: with `numprocs` (or `opsq scale`) one for each number.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from opsq.exceptions import ImproperlyConfigured
from opsq.runtime.process import signal_number
from opsq.runtime.spawn import run_as
from opsq.supervisor.plan import Program, wrong

_VARIABLE = re.compile(r"%\((ENV_\w+|program_name|process_num|numprocs|group_name|here)\)(0?\d*[sd])")
_NAME = re.compile(r"\w[\w.@+=,~-]*")
RESTARTS = {True: "always", False: "never", "unexpected": "unexpected", "true": "always", "false": "never"}
#: The name under which the supervisor's own log is kept, and the one that means every program.
RESERVED = ("opsq", "all")
#: Words that say how many programs a table means, and how they are called.
COPIES = ("numprocs", "numprocs_start", "process_name")
_MOST_COPIES = 1000

Expand = Callable[[str], str]


def programs_from_table(
    name: str, table: Mapping[str, Any], folder: Path, base: Program | None = None, copies: int | None = None
) -> dict[str, Program]:
    """The programs that a `[programs.NAME]` table of opsq.toml means; with `base` the changes that it makes to ours.

    `copies` takes the place of its `numprocs`.
    """
    own = {key: value for key, value in table.items() if key not in COPIES}
    numbers = copy_numbers(name, table, copies)
    pattern = table.get("process_name", "%(program_name)s")
    if not isinstance(pattern, str):
        raise wrong(name, f"process_name = {pattern!r} cannot be: it must be text")
    group = str(table.get("group", name if len(numbers) > 1 else ""))
    made: dict[str, Program] = {}
    for number in numbers:
        known = {"program_name": name, "process_num": number, "numprocs": len(numbers), "group_name": group or name}

        def expand(text: str, known: Mapping[str, Any] = known) -> str:
            return _VARIABLE.sub(lambda match: _known(name, match, {**known, "here": str(folder)}), text)

        called = copy_name(expand(pattern), pattern, number, numbers[0])
        program = program_from_table(called, _expanded(own, expand), folder, base)
        made[called] = replace(program, group=program.group or group or None)
    return made


def copy_numbers(name: str, table: Mapping[str, Any], copies: int | None) -> list[int]:
    """The numbers of the programs that a table means."""
    values = {"numprocs": 1, "numprocs_start": 0, **{key: table[key] for key in COPIES[:2] if key in table}}
    for key, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST_COPIES:
            raise wrong(name, f"{key} = {value!r} cannot be: it must be a whole number up to {_MOST_COPIES}")
    count = values["numprocs"] if copies is None else copies
    return list(range(values["numprocs_start"], values["numprocs_start"] + count))


def copy_name(name: str, pattern: str, number: int, first: int) -> str:
    """What the program with this number is called: by the pattern, and if that has no number by one at the end."""
    return name if number == first or "%(process_num)" in pattern else f"{name}_{number:02d}"


def program_from_table(name: str, table: Mapping[str, Any], folder: Path, base: Program | None = None) -> Program:
    """The one program that a table means in which nothing is left to be expanded."""
    if not _NAME.fullmatch(name) or name in RESERVED:
        raise wrong(name, 'a name is made of letters, digits and . _ - @ + = , ~, and is not "opsq" or "all"')
    if base is None and "command" not in table:
        raise wrong(name, "its 'command' is missing")
    values = {key: _value(name, key, value, folder) for key, value in table.items()}
    if values.get("user") and values.get("ready") == "notify":
        raise wrong(name, "a program of another user cannot reach the socket on which it would say that it is ready")
    if values.get("stopasgroup") and values.get("killasgroup") is False:
        raise wrong(name, "stopasgroup = true and killasgroup = false do not fit together")
    if base is None:
        return Program(**{"name": name, "directory": str(folder), **values})
    if "environment" in values:
        values["environment"] = {**base.environment, **values["environment"]}
    if "depends_on" in values:
        values["depends_on"] = {**base.depends_on, **values["depends_on"]}
    return replace(base, name=name, **values)


def _value(name: str, key: str, value: Any, folder: Path) -> Any:
    try:
        return _READERS.get(key, _plain(key))(value, folder)
    except (ValueError, TypeError, KeyError) as error:
        raise wrong(name, f"{key} = {value!r} cannot be: {error.args[0] if error.args else error}") from None
    except ImproperlyConfigured as error:
        raise wrong(name, error.why) from None


def _expanded(value: Any, expand: Expand) -> Any:
    """`%(ENV_X)s` and the like in strings, also in those of lists and tables."""
    if isinstance(value, str):
        return expand(value)
    if isinstance(value, list):
        return [_expanded(each, expand) for each in value]
    if isinstance(value, Mapping):
        return {key: _expanded(each, expand) for key, each in value.items()}
    return value


def _known(name: str, match: re.Match[str], known: Mapping[str, Any]) -> str:
    word, form = match[1], match[2]
    if word.startswith("ENV_"):
        if word[4:] not in os.environ:
            raise wrong(name, f"the variable {word[4:]} is not set")
        return os.environ[word[4:]]
    try:
        return str(f"%{form}" % known[word])
    except (TypeError, ValueError):
        raise wrong(name, f"%({word}){form}: it is no number") from None


def _plain(key: str) -> Any:
    kind = next(str(each.type) for each in fields(Program) if each.name == key).removesuffix(" | None")
    wanted: Mapping[str, tuple[type, ...]] = {"float": (float, int), "int": (int,), "bool": (bool,)}
    allowed = wanted.get(kind, (str,))

    def read(value: Any, _folder: Path) -> Any:
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise ValueError(f"it must be {_KINDS[allowed[0]]}")
        if isinstance(value, int | float) and value < 0 and key != "priority":
            raise ValueError("it must not be negative")
        return value

    return read


_KINDS: Mapping[type, str] = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}


def words(command: Any) -> tuple[str, ...]:
    """The words of a command. Raises ValueError."""
    found = shlex.split(command) if isinstance(command, str) else command
    if not isinstance(found, list) or not found or not all(isinstance(word, str) for word in found):
        raise ValueError("it must be a list of words, or one line")
    return tuple(found)


def _directory(value: Any, folder: Path) -> str:
    path = folder / Path(value).expanduser()
    if not path.is_dir():
        raise ValueError("there is no such directory")
    return str(path)


#: Supervisord's way to say that a container's log shall have it, which `opsq up --foreground` does with every log.
_OUR_OWN_OUTPUT = ("/dev/stdout", "/dev/stderr", "/dev/fd/1", "/dev/fd/2")


def _logfile(value: Any, folder: Path) -> str | None:
    """The file's whole path; "auto" stays, "none" is the device that swallows everything."""
    text = str(value).strip()
    if text.lower() == "none":
        return os.devnull
    if text.lower() == "auto" or text in _OUR_OWN_OUTPUT:
        return "auto"
    path = folder / Path(text).expanduser()
    if not path.parent.is_dir():
        raise ValueError(f"there is no directory {path.parent}")
    if path.exists() and not (path.is_file() or path.is_char_device()):
        raise ValueError("it is no file")
    return str(path)


def _none_if_auto(path: str | None) -> str | None:
    return None if path == "auto" else path


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


_READERS: Mapping[str, Any] = {
    "command": lambda value, _folder: words(value),
    "directory": _directory,
    "stdout_logfile": lambda value, folder: _none_if_auto(_logfile(value, folder)),
    "stderr_logfile": _logfile,
    "environment": _strings,
    "depends_on": _strings,
    "user": _user,
    "umask": lambda value, _folder: int(str(value), 8),
    "exitcodes": _exitcodes,
    "autorestart": _autorestart,
    "stopsignal": lambda value, _folder: signal_number(value),
    "reloadsignal": lambda value, _folder: signal_number(value),
    "ready": _ready,
}
