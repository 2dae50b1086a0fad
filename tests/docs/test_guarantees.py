"""docs/guarantees.md names tests: each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:tests/[\w/]+/)?(?:test_[\w*]+|\w+)\.py|test_[\w*]+)`", PAGE)))


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """Path -> text of all tests and programs beside them."""
    return {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "tests").rglob("*.py")}


def test_there_are_many() -> None:
    assert len(NAMED) > 30


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_is_named_is_there(name: str, files: dict[str, str]) -> None:
    if name.endswith(".py"):
        assert any(path == name or path.endswith(f"/{name}") for path in files), name
    else:
        pattern = re.compile(rf"^(?:async )?def {re.escape(name).replace(re.escape('*'), '[a-z0-9_]*')}\(", re.M)
        assert any(pattern.search(text) for text in files.values()), name
