"""The clock of the server, which ends leases, as TIME answers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def in_ms(answer: Sequence[Any]) -> int:
    """The answer to TIME (seconds, microseconds; in either protocol) as Unix ms."""
    seconds, micros = answer
    return int(seconds) * 1000 + int(micros) // 1000


def in_s(answer: Sequence[Any]) -> float:
    """The same as Unix seconds."""
    seconds, micros = answer
    return int(seconds) + int(micros) / 1e6
