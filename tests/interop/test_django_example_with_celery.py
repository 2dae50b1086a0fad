"""The example project of Django in the hands of Celery, then of opsq, then of Celery again: its database goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import celery_venv, django_example
from support.django_beat import stop_celery
from support.django_example import Example
from support.processes import Spawner


@pytest.fixture
def celery(tmp_path: Path, spawn: Spawner, redis_url: str, request: pytest.FixtureRequest) -> Example:
    """The project as it was before opsq."""
    folder = django_example.original(tmp_path / "shop")
    made = Example(folder, spawn, redis_url, python=str(celery_venv.django_python()), label="django_celery_beat")
    if request.param == "postgresql":
        made.database = request.getfixturevalue("postgres_database")
    return made


@pytest.mark.parametrize("celery", ["sqlite", "postgresql"], indirect=True)
def test_orders_results_schedules_and_counts_go_on_from_celery_to_opsq_and_back(
    celery: Example, tmp_path: Path, wait_for: Callable[..., Any]
) -> None:
    opsq = replace(celery, python=Example.python, label="opsq")
    before = django_example.original(tmp_path / "before")

    def works(shop: Example, program: str, item: str, source: Path) -> int:
        """Bring the files, order, have the schedule run twice, stop; how often it has run by then."""
        shop.bring(source)
        shop.manage("migrate", "-v", "0")
        if program == "celery" and not orders:
            shop.schedule("often", "shop.tasks.count_packed", 1)
        known = shop.runs("often")
        worker = shop.start("-m", program, "-A", "proj", "worker", "-l", "info", "-c", "1", ready=" ready.")
        beat = shop.start("-m", program, "-A", "proj", "beat", "-l", "info", ready="often")
        orders.append(item)
        assert shop.ordered(item) == django_example.packed(*orders)
        wait_for(lambda: ran(worker.output()) >= 2, 40, "the schedule goes on")
        if program == "opsq":
            assert beat.stop() == 0
        else:
            stop_celery(beat)
        runs = shop.runs("often")
        wait_for(lambda: ran(worker.output()) >= runs - known, 30, "each run that is counted has run")
        assert worker.stop() == 0
        ticks.append(ran(worker.output()))
        # A signal that meets Celery's beat while it saves the row costs the row all runs since it was last saved.
        assert 0 <= ticks[-1] - (runs - known) <= (0 if program == "opsq" else ticks[-1])
        assert shop.results("shop.tasks.count_packed") == sum(ticks)
        return runs

    def ran(output: str) -> int:
        return sum("shop.tasks.count_packed" in line and " succeeded in " in line for line in output.splitlines())

    orders: list[str] = []
    ticks: list[int] = []
    by_celery = works(celery, "celery", "pears", before)
    by_opsq = works(opsq, "opsq", "quinces", django_example.FOLDER)
    by_celery_again = works(celery, "celery", "plums", before)
    assert by_celery < by_opsq <= by_celery_again
