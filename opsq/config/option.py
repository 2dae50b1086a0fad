"""One setting: its names, its type, its default, what it means, and whether opsq acts on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

Standing = Literal["works", "no effect", "refused"]
WORKS: Standing = "works"
INERT: Standing = "no effect"
REFUSED: Standing = "refused"

_TRUE, _FALSE = ("1", "true", "yes", "on", "y", "t"), ("0", "false", "no", "off", "n", "f")


@dataclass(frozen=True, slots=True)
class Option:
    """A row of the table of settings. `old`: its name before Celery 4; `standing`: what it does here.

    `why`: why it has no effect, or what to do instead of what is refused; `allowed`: values that are not refused,
    besides the default, because they ask for what opsq does anyway.
    """

    name: str
    type: type
    default: Any
    old: str
    standing: Standing
    help: str
    why: str = ""
    allowed: tuple[Any, ...] = ()

    def parse(self, text: str) -> Any:
        """The value that a text means (command line, environment). Raises ValueError."""
        if self.type is bool:
            return parse_bool(text)
        if self.type in (list, tuple) and text[:1] != "[":
            return self.type(part.strip() for part in text.split(",") if part.strip())
        if self.type in (list, tuple, dict):
            return _of_kind(self.type, json.loads(text))
        if self.type is bytes:
            return text.encode()
        if self.type is object:
            return _json_or_text(text)
        return self.type(text)

    def refuses(self, value: Any) -> bool:
        """Whether this value asks for something that opsq does not do."""
        return self.standing == REFUSED and value not in (self.default, *self.allowed)


def _of_kind(kind: type, value: Any) -> Any:
    if not isinstance(value, dict if kind is dict else list):
        raise ValueError(f"it is no JSON {'object' if kind is dict else 'list'}")
    return kind(value)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if text[:1] in ("[", "{"):
            raise
        return text


def parse_bool(text: str) -> bool:
    """Yes or no in any of the usual words. Raises ValueError."""
    word = text.strip().lower()
    if word not in _TRUE + _FALSE:
        raise ValueError(f"{text!r} is neither yes nor no")
    return word in _TRUE
