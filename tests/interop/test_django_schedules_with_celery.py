"""One database, in turn in the hands of Celery with django-celery-beat and of opsq: schedules and counts go on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from support import celery_venv
from support.django_beat import DjangoProject, stop_celery
from support.processes import Spawner


@pytest.fixture
def opsq(
    tmp_path: Path, spawn: Spawner, redis_url: str, redis_client: redis.Redis, wait_for: Callable[..., Any]
) -> DjangoProject:
    return DjangoProject(tmp_path / "project", spawn, redis_url, redis_client, wait_for).write()


@pytest.fixture
def celery(opsq: DjangoProject) -> DjangoProject:
    """The same project in the other environment."""
    python = str(celery_venv.django_python())
    assert subprocess.run([python, "-I", "-c", "import opsq"], capture_output=True, check=False).returncode != 0
    return replace(opsq, python=python, apps="django_celery_beat", label="django_celery_beat")


def runs(project: DjangoProject, name: str) -> int:
    count: int = project.row(name)["total_run_count"]
    return count


def uncounted_by_celery(celery: DjangoProject, sent: int) -> int:
    """How many of so many ticks are not in the row: all since it was last saved, if the signal met Celery's beat while
    it saved the row.

    Its handler saves what is still to be saved, and that row is no longer in the list.
    """
    missed = sent - runs(celery, "tick")
    assert 0 <= missed <= sent
    return missed


def test_schedules_and_counts_go_on_from_celery_to_opsq_and_back(opsq: DjangoProject, celery: DjangoProject) -> None:
    celery.manage("migrate", "-v", "0")
    celery.do('every(1, "tick"); every(3600, "hourly", last_run_at=now() - timedelta(minutes=30))')
    beat = celery.beat(ready="Sending due task tick", program="celery")
    celery.wait_sent("tick", 3)
    stop_celery(beat)
    by_celery = opsq.sent().count("tick")
    missed = uncounted_by_celery(celery, by_celery)
    opsq.manage("migrate", "-v", "0")
    last = celery.row("tick")["last_run_at"]
    assert last == opsq.row("tick")["last_run_at"]

    beat = opsq.beat()
    opsq.wait_sent("tick", by_celery + 3)
    assert 1500 < opsq.schedule()["hourly"]["next"] - opsq.do("answer = now().timestamp()") < 1800
    assert beat.stop() == 0
    by_both = opsq.sent().count("tick")
    assert runs(opsq, "tick") == by_both - missed
    assert last is None or opsq.row("tick")["last_run_at"] > last

    celery.manage("migrate", "-v", "0")
    beat = celery.beat(ready="Sending due task tick", program="celery")
    celery.wait_sent("tick", by_both + 2)
    stop_celery(beat)
    uncounted_by_celery(celery, opsq.sent().count("tick") - missed)
    assert runs(celery, "tick") >= by_both - missed
    assert runs(celery, "hourly") == 0
    assert "hourly" not in opsq.sent()


def test_the_package_takes_over_the_tables_that_opsq_has_made(opsq: DjangoProject, celery: DjangoProject) -> None:
    opsq.manage("migrate", "-v", "0")
    opsq.do('every(5, "kept", priority=3)')
    celery.manage("migrate", "-v", "0")
    assert celery.row("kept")["priority"] == 3
    assert "No changes" in celery.manage("makemigrations", "--check", "--dry-run")
    assert "No changes" in opsq.manage("makemigrations", "--check", "--dry-run")
    made = indexes(opsq)
    (opsq.folder / "db.sqlite3").unlink()
    celery.manage("migrate", "-v", "0")
    assert made == indexes(celery)


def indexes(project: DjangoProject) -> set[tuple[str, ...]]:
    """Table and columns of all indexes."""
    found = project.do("""
from django.db import connection
answer = []
with connection.cursor() as cursor:
    for table in connection.introspection.table_names(cursor):
        if table.startswith("django_celery_beat"):
            known = connection.introspection.get_constraints(cursor, table).values()
            answer += [[table, *each["columns"], str(each["unique"]), str(each["index"])] for each in known]
""")
    return {tuple(each) for each in found}


def test_tables_of_an_older_version_are_refused_in_a_sentence(opsq: DjangoProject, celery: DjangoProject) -> None:
    celery.manage("migrate", "django_celery_beat", "0008", "-v", "0")
    done = opsq.fails("migrate")
    assert "it is of an older django_celery_beat, it has no clocked_id, expire_seconds, headers" in done
    assert "Traceback" not in done
