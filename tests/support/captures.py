"""What real Celery workers and clients have put into Redis, as recorded."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "captures"


@cache
def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def messages() -> dict[str, tuple[str, str]]:
    """Case -> (list, message); a case with several messages counts them."""
    found = {}
    for case, entries in _read("task-messages")["messages"].items():
        for number, entry in enumerate(entries):
            found[f"{case}-{number}" if number else case] = (entry["list"], entry["message"])
    return found


def results() -> dict[str, str]:
    """Case -> stored result."""
    return {case: entries[0] for case, entries in _read("results")["results"].items()}


def required_fields() -> list[dict[str, Any]]:
    """What a Celery worker did with messages that lack something: rows of label, ran, worker_alive, result."""
    rows: list[dict[str, Any]] = _read("required-fields")["rows"]
    return rows


def events() -> dict[str, str]:
    """Type of event -> the message with it that a worker published."""
    found: dict[str, str] = _read("events")["messages"]
    return found


def commands() -> dict[str, str]:
    """Case -> the remote command that Celery's control API has broadcast."""
    found: dict[str, str] = _read("commands")["commands"]
    return found
