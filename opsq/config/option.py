"""One setting: its names, its type, its default, what it means, and whether opsq acts on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

Standing = Literal["works", "no effect"]
WORKS: Standing = "works"
INERT: Standing = "no effect"

_TRUE, _FALSE = ("1", "true", "yes", "on", "y", "t"), ("0", "false", "no", "off", "n", "f")


@dataclass(frozen=True, slots=True)
class Option:
    """A row of the table of settings. `old`: its name before Celery 4; `standing`: what it does here."""

    name: str
    type: type
    default: Any
    old: str
    standing: Standing
    help: str

    def parse(self, text: str) -> Any:
        """The value that a text means (command line, environment). Raises ValueError."""
        if self.type is bool:
            return parse_bool(text)
        if self.type in (list, tuple, dict) and text[:1] in "[{":
            return self.type(json.loads(text))
        if self.type in (list, tuple):
            return self.type(part.strip() for part in text.split(",") if part.strip())
        if self.type is bytes:
            return text.encode()
        return text if self.type is object else self.type(text)


def parse_bool(text: str) -> bool:
    """Yes or no in any of the usual words. Raises ValueError."""
    word = text.strip().lower()
    if word not in _TRUE + _FALSE:
        raise ValueError(f"{text!r} is neither yes nor no")
    return word in _TRUE
