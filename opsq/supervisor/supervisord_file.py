"""A supervisord.conf as programs, read as supervisord reads it. What has no effect here is said, not refused."""

from __future__ import annotations

import configparser
import glob
import os
import platform
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from opsq.exceptions import ImproperlyConfigured
from opsq.supervisor.plan import Program, wrong
from opsq.supervisor.tables import copy_name, copy_numbers, program_from_table

_YES, _NO = ("yes", "true", "on", "1"), ("no", "false", "off", "0")
_SIZES = {"kb": 1024, "mb": 1024**2, "gb": 1024**3}
#: What supervisord does with a program and we do not: told once where a file asks for it.
_NOT_HERE = ("stdout_syslog", "stderr_syslog", "stdout_events_enabled", "stderr_events_enabled")
_NOT_HERE_SIZES = ("stdout_capture_maxbytes", "stderr_capture_maxbytes")


@dataclass(frozen=True, slots=True)
class Found:
    """The programs of a file, in supervisord's order of start, its sections, and what is to be said about it."""

    programs: Mapping[str, Program]
    sections: tuple[str, ...]
    notes: tuple[str, ...]


def read(path: Path, here: Path, copies: Mapping[str, int] | None = None) -> Found:
    """The programs of the file. `here`: what relative paths in it start from; `copies`: in place of its `numprocs`.

    Raises ImproperlyConfigured.
    """
    return _File(path.absolute(), here, copies or {}).read()


class _File:
    """One file with what it includes, and the words that are expanded in it."""

    def __init__(self, path: Path, here: Path, copies: Mapping[str, int]) -> None:
        self._path, self._here, self._copies = path, here, copies
        self._parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
        self._words: dict[str, Any] = {f"ENV_{name}": value for name, value in os.environ.items()}
        self._words |= {"here": str(path.parent), "host_node_name": platform.node()}
        self._shared: dict[str, str] = {}
        self._notes: list[str] = []

    def read(self) -> Found:
        self._load(self._path)
        if self._parser.has_section("include"):
            self._include()
        if self._parser.has_section("supervisord"):
            self._shared = self._pairs("supervisord", self._get("supervisord", "environment", self._words) or "")
            self._words |= {f"ENV_{name}": value for name, value in self._shared.items()}
            if (folder := self._get("supervisord", "directory", self._words)) is not None:
                self._here = self._here / folder
        for section in self._parser.sections():
            if section.startswith(("eventlistener:", "fcgi-program:")):
                self._notes.append(f"[{section}] is left out: opsq has no such thing")
        made: dict[str, Program] = {}
        for program in sorted(self._programs(), key=lambda program: program.priority):
            name = program.name if program.name not in made else f"{program.group}-{program.name}"
            made[name] = replace(program, name=name)
        if not made:
            raise self._wrong("it has no [program:x] section")
        sections = [each.partition(":")[2].strip() for each in self._parser.sections() if each.startswith("program:")]
        return Found(made, tuple(sections), tuple(dict.fromkeys(self._notes)))

    # --- sections ---------------------------------------------------------------------------------------------------

    def _load(self, path: Path) -> None:
        try:
            with path.open(encoding="utf-8") as file:
                self._parser.read_file(file)
        except OSError as error:
            raise ImproperlyConfigured(f"cannot use {path}", why=(error.strerror or str(error)).lower()) from None
        except (configparser.Error, UnicodeDecodeError) as error:
            raise ImproperlyConfigured(f"cannot use {path}", why=" ".join(str(error).split())) from None
        for section in self._parser.sections():  # the folder of the file in which it stands
            for key, text in self._parser.items(section):
                if text and "%(here)s" in text:
                    self._parser.set(section, key, text.replace("%(here)s", str(path.parent).replace("%", "%%")))

    def _include(self) -> None:
        patterns = self._get("include", "files", self._words)
        if patterns is None:
            raise self._wrong("its [include] section has no 'files'")
        for pattern in patterns.split():
            found = sorted(glob.glob(os.path.join(self._path.parent, pattern)))
            if not found:
                self._notes.append(f"[include] {pattern}: no such file")
            for name in found:
                self._load(Path(name))

    def _programs(self) -> Iterable[Program]:
        grouped: set[str] = set()
        for section in self._parser.sections():
            if not section.startswith("group:"):
                continue
            group = section.partition(":")[2].strip()
            priority = self._number(section, "priority", self._words, 999)
            names = (self._get(section, "programs", self._words) or "").split(",")
            for name in (each.strip() for each in names):
                if not self._parser.has_section(f"program:{name}"):
                    raise self._wrong(f"[{section}] names the program {name!r}, which the file does not have")
                grouped.add(name)
                inner = sorted(self._of_section(f"program:{name}", group), key=lambda program: program.priority)
                yield from (replace(program, priority=priority) for program in inner)
        for section in self._parser.sections():
            name = section.partition(":")[2].strip()
            if section.startswith("program:") and name not in grouped:
                yield from self._of_section(section, name)

    def _of_section(self, section: str, group: str) -> Iterable[Program]:
        name = section.partition(":")[2].strip()
        for key in self._parser.options(section):
            if key not in _KNOWN:
                self._notes.append(f"[{section}] {key} is no word of supervisord's: it has no effect")
        words = {**self._words, "program_name": name, "group_name": group}
        numbers = {key: self._number(section, key, words, default) for key, default in _NUMBERS.items()}
        if (
            self._copies.get(name) is None
            and numbers["numprocs"] > 1
            and "%(process_num)" not in self._raw_name(section)
        ):
            raise self._wrong(
                f"[{section}] has numprocs = {numbers['numprocs']} and no %(process_num)d in process_name"
            )
        chosen = copy_numbers(name, numbers, self._copies.get(name))
        for number in chosen:
            words |= {"process_num": number, "numprocs": len(chosen)}
            yield self._program(section, group, words, number == chosen[0])

    def _raw_name(self, section: str) -> str:
        return self._parser.get(section, "process_name", fallback="%(program_name)s")

    def _program(self, section: str, group: str, words: dict[str, Any], first: bool) -> Program:
        raw = self._raw_name(section)
        number = words["process_num"]
        name = copy_name(self._expand(section, "process_name", raw, words), raw, number, number if first else -1)
        own = self._pairs(section, self._get(section, "environment", words) or "")
        words |= {f"ENV_{key}": value for key, value in own.items()}
        environment = {
            "SUPERVISOR_ENABLED": "1",
            "SUPERVISOR_PROCESS_NAME": name,
            "SUPERVISOR_GROUP_NAME": group,
            **self._shared,
            **own,
        }
        table: dict[str, Any] = {"group": group, "environment": environment, **self._logs(section, words)}
        table["umask"] = self._get(section, "umask", words) or self._umask()
        for key, reader in _WORDS.items():
            if (text := self._get(section, key, words)) is not None:
                try:
                    table[key] = reader(text)
                except ValueError as error:
                    raise wrong(name, f"{key} = {text!r} cannot be: {error}") from None
        for key in _NOT_HERE:
            if self._flag(section, key, words, False):
                self._notes.append(f"[{section}] {key} has no effect: what it writes goes to its log")
        return program_from_table(name, table, self._here)

    def _umask(self) -> str:
        return (self._parser.has_section("supervisord") and self._get("supervisord", "umask", self._words)) or "022"

    def _logs(self, section: str, words: Mapping[str, Any]) -> dict[str, Any]:
        """Both streams: into one log of ours where the file names none, apart where it names one for either."""
        table: dict[str, Any] = {}
        together = self._flag(section, "redirect_stderr", words, False)
        for stream, most, backups in _STREAMS:
            path = self._get(section, f"{stream}_logfile", words) or "AUTO"
            table[f"{stream}_logfile"] = "none" if path.lower() in ("none", "off", "syslog") else path
            table[most] = _size(self._get(section, f"{stream}_logfile_maxbytes", words) or "50MB")
            table[backups] = self._number(section, f"{stream}_logfile_backups", words, 10)
        automatic = [table[f"{stream}_logfile"].lower() in _AUTOMATIC for stream in ("stdout", "stderr")]
        if together or all(automatic):
            for key in ("stderr_logfile", *_STREAMS[1][1:]):
                del table[key]
        elif automatic[1]:
            table["stderr_logfile"] = "auto"
        return table

    # --- values -----------------------------------------------------------------------------------------------------

    def _get(self, section: str, key: str, words: Mapping[str, Any]) -> str | None:
        text = self._parser.get(section, key, fallback=None)
        return None if text is None else self._expand(section, key, text, words)

    def _expand(self, section: str, key: str, text: str, words: Mapping[str, Any]) -> str:
        try:
            return text % words
        except KeyError as error:
            missing = str(error.args[0])
            why = (
                f"the variable {missing[4:]} is not set" if missing.startswith("ENV_") else f"%({missing})s is unknown"
            )
        except (ValueError, TypeError) as error:
            why = str(error)
        raise self._wrong(f"[{section}] {key} = {text!r}: {why}")

    def _number(self, section: str, key: str, words: Mapping[str, Any], default: int) -> int:
        text = self._get(section, key, words)
        try:
            return default if text is None else int(text)
        except ValueError:
            raise self._wrong(f"[{section}] {key} = {text!r} is no whole number") from None

    def _flag(self, section: str, key: str, words: Mapping[str, Any], default: bool) -> bool:
        text = self._get(section, key, words)
        try:
            return default if text is None else _flag(text)
        except ValueError as error:
            raise self._wrong(f"[{section}] {key} = {text!r}: {error}") from None

    def _pairs(self, section: str, text: str) -> dict[str, str]:
        """`KEY="value",OTHER=value`, by supervisord's own rules."""
        lexer = shlex.shlex(text)
        lexer.wordchars += "/.+-():"
        try:
            words = list(lexer)
        except ValueError as error:
            raise self._wrong(f"[{section}] environment: {error}") from None
        pairs = {}
        for at in range(0, len(words), 4):
            part = words[at : at + 3]
            if len(part) != 3 or part[1] != "=":
                raise self._wrong(f'[{section}] environment = {text!r} is not of the form A="b",C="d"')
            pairs[part[0]] = part[2].strip("'\"")
        return pairs

    def _wrong(self, why: str) -> ImproperlyConfigured:
        return ImproperlyConfigured(f"cannot use {self._path}", why=why)


def _flag(text: str) -> bool:
    word = text.strip().lower()
    if word not in _YES + _NO:
        raise ValueError("it must be true or false")
    return word in _YES


def _restart(text: str) -> bool | str:
    return "unexpected" if text.strip().lower() == "unexpected" else _flag(text)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("it must be a whole number") from None


def _codes(text: str) -> list[int]:
    return [_whole(part) for part in text.split(",") if part.strip()]


def _size(text: str) -> int:
    """Bytes, also as 50MB."""
    number, unit = text.strip()[:-2], text.strip()[-2:].lower()
    if unit in _SIZES:
        return _whole(number) * _SIZES[unit]
    return _whole(text)


_NUMBERS = {"numprocs": 1, "numprocs_start": 0}
_AUTOMATIC = ("auto", "/dev/stdout", "/dev/stderr", "/dev/fd/1", "/dev/fd/2")
#: Each stream and our words for its limits.
_STREAMS = (
    ("stdout", "log_max_bytes", "log_backups"),
    ("stderr", "stderr_log_max_bytes", "stderr_log_backups"),
)
#: Words that mean the same here, and how their values are read.
_WORDS: Mapping[str, Callable[[str], Any]] = {
    "command": str,
    "directory": str,
    "user": str,
    "stopsignal": str,
    "priority": _whole,
    "autostart": _flag,
    "autorestart": _restart,
    "startsecs": _whole,
    "startretries": _whole,
    "exitcodes": _codes,
    "stopwaitsecs": _whole,
    "stopasgroup": _flag,
    "killasgroup": _flag,
}
_KNOWN = frozenset(
    {*_WORDS, *_NUMBERS, *_NOT_HERE, *_NOT_HERE_SIZES, "process_name", "environment", "umask", "redirect_stderr"}
    | {f"{stream}_logfile{limit}" for stream, *_ in _STREAMS for limit in ("", "_maxbytes", "_backups")}
    | {"serverurl"}
)
