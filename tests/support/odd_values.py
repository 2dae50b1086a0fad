"""Types that a JSON writer can get wrong. The process with the real kombu imports this too: no opsq here."""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple


class Colour(enum.Enum):
    RED = "red"
    ONE = 1


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    HI = "hi"


class Point(NamedTuple):
    x: Any
    y: Any


@dataclass
class Record:
    x: Any


class Text(str):
    pass


class Number(int):
    pass


class Real(float):
    pass


class Row(list):  # type: ignore[type-arg]
    pass


class Sorted(OrderedDict):  # type: ignore[type-arg]
    pass


class Own:
    """Knows how it wants to be written."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __json__(self) -> Any:
        return self.value


class Broken:
    """Its own method fails."""

    def __json__(self) -> Any:
        raise RuntimeError("no")
