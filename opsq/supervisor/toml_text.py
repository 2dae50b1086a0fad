"""Programs as the `[programs.NAME]` tables of an opsq.toml: what `opsq import` writes."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from opsq.supervisor.plan import Program

_RESTARTS: Mapping[str, Any] = {"always": True, "never": False, "unexpected": "unexpected"}
#: Not told by a table: the name is its heading, `answer` is the private Redis' own.
_NOT_WORDS = ("name", "answer")


def text(programs: Iterable[Program]) -> str:
    """One table a program, with the words that are not the default."""
    return "\n".join(_table(program) for program in programs)


def _table(program: Program) -> str:
    lines = [f"[programs.{_key(program.name)}]"]
    for field in fields(Program):
        value = getattr(program, field.name)
        default = field.default_factory() if callable(field.default_factory) else field.default
        if field.name not in _NOT_WORDS and value != default:
            lines.append(f"{field.name} = {_value(_word(field.name, value))}")
    return "\n".join([*lines, ""])


def _word(name: str, value: Any) -> Any:
    """The value as a table says it."""
    if name == "autorestart":
        return _RESTARTS[value]
    if name in ("stopsignal", "reloadsignal"):
        return signal.Signals(value).name.removeprefix("SIG")
    if name == "umask":
        return f"{value:03o}"
    return value


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(key))} = {_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("-", "_").replace("_", "a").isalnum()
    return name if bare else _quoted(name)


def _quoted(text: str) -> str:
    """JSON's escapes are TOML's; DEL is the one character that only TOML forbids."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
