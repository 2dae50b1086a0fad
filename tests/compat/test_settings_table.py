"""Each setting of Celery is in the table: it works and a test shows it, or it says why not, or what to do instead."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from support import documents

from opsq.config.names import BY_NAME, BY_OLD_NAME
from opsq.config.option import WORKS

HERE = Path(__file__).parent
ROWS = [line.split() for line in (HERE / "celery-settings.txt").read_text().splitlines() if line[:1] != "#"]
SHOWN = tomllib.loads((HERE / "settings-shown.toml").read_text())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_setting_of_celery_works_or_says_why_not(row: list[str]) -> None:
    name, *old = row
    option = BY_NAME[name]
    for each in old or [name.upper()]:
        assert BY_OLD_NAME[each] == name
    if option.standing == WORKS:
        assert not option.why
        assert documents.is_test(SHOWN[name]), SHOWN[name]
    else:
        assert option.why, "say why, or what to do instead"


def test_nothing_is_shown_that_does_not_work() -> None:
    assert [name for name in SHOWN if BY_NAME[name].standing != WORKS] == []
