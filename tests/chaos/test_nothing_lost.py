"""The bounded run of the chaos suite: each strike at least once, in one order, at random instants."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.arena import Setup
from chaos.nothing_lost import strike
from chaos.strikes import KILLS, OTHERS

SEED = 20


@pytest.mark.parametrize(("names", "results_db"), [([*KILLS], 1), ([*OTHERS], 0)], ids=["kills", "others"])
def test_nothing_is_lost_whatever_is_done_to_worker_and_redis(
    tmp_path: Path, names: list[str], results_db: int
) -> None:
    run = strike(tmp_path, names, SEED, results_db)
    assert not run.verdict.broken, run.table()
    assert run.verdict.counts["sent"] > 50


def test_nothing_is_lost_when_the_master_goes_and_its_replica_has_all(tmp_path: Path) -> None:
    run = strike(tmp_path, ["failover", "child", "failover", "group"], SEED, setup=Setup(sentinels=True))
    assert not run.verdict.broken, run.table()
    assert run.verdict.counts["sent"] > 50
