"""docs/guarantees.md names tests: each of them exists."""

from __future__ import annotations

import pytest
from support import documents

NAMED = documents.named_tests((documents.ROOT / "docs" / "guarantees.md").read_text())


def test_there_are_many() -> None:
    assert len(NAMED) > 30


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_is_named_is_there(name: str) -> None:
    assert documents.is_test(name)
