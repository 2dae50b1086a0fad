"""docs/celery-compatibility.md: each row is backed by tests, and each test that it names exists."""

from __future__ import annotations

import pytest
from support import documents

PAGE = documents.ROOT / "docs" / "celery-compatibility.md"
ROWS = [row for table in documents.tables(PAGE) if table[0][-1] == "shown by" for row in table[1:]]


def test_there_are_many() -> None:
    assert len(ROWS) > 25


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_a_row_is_backed_by_tests_that_are_there(row: list[str]) -> None:
    assert len(row) == 3, row
    named = documents.named_tests(row[-1])
    assert named, "names no test"
    assert [name for name in named if not documents.is_test(name)] == []


def test_what_does_not_work_is_named_with_the_reason() -> None:
    *_, last = PAGE.read_text().split("\n## ")
    assert last.startswith("What is not there")
    points = [point for point in last.split("\n- ")[1:] if ":" not in point]
    assert points == [], "give the reason after a colon"
