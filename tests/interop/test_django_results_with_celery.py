"""Results in one database or cache, of Celery with django-celery-results and of opsq: each reads the others."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from support import celery_venv
from support.django_results import ResultsProject
from support.postgres import Database
from support.processes import Spawner

#: What is the same in rows of both.
ALIKE = ("status", "content_type", "content_encoding", "task_name", "periodic_task_name")
CALLS = (
    "add.delay(2, y=3)",
    "fail.delay('no good')",
    "add.apply_async((2,), argsrepr='(TWO)')",
    "family.apply_async(task_id='family-WHO')",
    "add.apply_async((1,), headers={'periodic_task_name': 'nightly'})",
)
READ = """
from {program}.result import AsyncResult
answer = []
for each in {ids!r}:
    found = AsyncResult(each, app=app)
    value = found.result
    value = [type(value).__name__, list(value.args)] if isinstance(value, Exception) else value
    answer.append([found.state, value, found.args, found.kwargs, found.worker, found.date_done is not None,
                   [child.id for child in found.children or ()]])
"""


@pytest.fixture
def opsq(
    tmp_path: Path, spawn: Spawner, redis_url: str, redis_client: redis.Redis, wait_for: Callable[..., Any]
) -> ResultsProject:
    return ResultsProject(tmp_path / "project", spawn, redis_url, redis_client, wait_for).write()


@pytest.fixture
def celery(opsq: ResultsProject) -> ResultsProject:
    """The same project in the other environment."""
    python = str(celery_venv.django_python())
    assert subprocess.run([python, "-I", "-c", "import opsq"], capture_output=True, check=False).returncode != 0
    return replace(opsq, python=python, apps="django_celery_results", label="django_celery_results")


def sent(project: ResultsProject, who: str) -> list[str]:
    """Send all calls; their ids, when all have a row that tells of their end."""
    ids = project.ask(f"answer = [each.id for each in [{', '.join(CALLS)}]]".replace("WHO", who))
    ended = ("SUCCESS", "FAILURE")
    wanted = [*ids, f"family-{who}-child"]
    project.wait_for(
        lambda: len([row for row in project.rows(*wanted) if row["status"] in ended]) == len(wanted),
        40,
        "all have ended",
    )
    return list(ids)


def in_order(project: ResultsProject, ids: list[str]) -> list[dict[str, Any]]:
    found = {row["task_id"]: row for row in project.rows(*ids)}
    return [found[each] for each in ids]


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_rows_are_those_of_celery_and_each_reads_the_others(
    opsq: ResultsProject, celery: ResultsProject, serializer: str
) -> None:
    for each in (opsq, celery):
        each.more = {"SERIALIZER": serializer, "C_FORCE_ROOT": "1"}
    celery.manage("migrate", "-v", "0")
    worker = celery.worker(program="celery")
    theirs = sent(celery, "celery")
    assert worker.stop() == 0
    of_celery = in_order(celery, theirs)
    read_by_celery = celery.ask(READ.format(program="celery", ids=theirs))
    opsq.manage("migrate", "-v", "0")
    assert opsq.ask(READ.format(program="opsq", ids=theirs)) == read_by_celery

    worker = opsq.worker()
    ours = sent(opsq, "opsq")
    assert worker.stop() == 0
    of_opsq = in_order(opsq, ours)
    for mine, other in zip(of_opsq, of_celery, strict=True):
        assert {name: mine[name] for name in ALIKE} == {name: other[name] for name in ALIKE}
        assert (mine["traceback"] is None) == (other["traceback"] is None)
        assert mine["worker"]
        assert mine["date_done"]
        assert mine["date_created"]
        if serializer == "json":
            assert json.loads(mine["result"]) == json.loads(other["result"])
            assert (mine["task_args"], mine["task_kwargs"]) == (other["task_args"], other["task_kwargs"])
            assert set(json.loads(other["meta"])) <= set(json.loads(mine["meta"]))
    read = opsq.ask(READ.format(program="opsq", ids=ours))
    assert read == celery.ask(READ.format(program="celery", ids=ours))
    assert [row[:2] for row in read] == [row[:2] for row in read_by_celery]
    assert read[3][6] == ["family-opsq-child"]


def test_the_package_takes_over_the_tables_that_opsq_has_made(opsq: ResultsProject, celery: ResultsProject) -> None:
    opsq.manage("migrate", "-v", "0")
    opsq.do('model("TaskResult").objects.create(task_id="kept", result="1", status="SUCCESS")')
    celery.manage("migrate", "-v", "0")
    assert celery.ask(READ.format(program="celery", ids=["kept"]))[0][:2] == ["SUCCESS", 1]
    assert "No changes" in celery.manage("makemigrations", "--check", "--dry-run")
    assert "No changes" in opsq.manage("makemigrations", "--check", "--dry-run")
    made = indexes(opsq)
    (opsq.folder / "db.sqlite3").unlink()
    celery.manage("migrate", "-v", "0")
    assert made == indexes(celery)


def indexes(project: ResultsProject) -> set[tuple[str, ...]]:
    """Name, table and columns of all indexes."""
    found = project.do("""
from django.db import connection
answer = []
with connection.cursor() as cursor:
    for table in connection.introspection.table_names(cursor):
        if table.startswith("django_celery_results"):
            for name, each in connection.introspection.get_constraints(cursor, table).items():
                is_plain = each["index"] and not each["unique"]
                answer.append([table, *each["columns"], str(each["unique"]), name if is_plain else ""])
""")
    return {tuple(each) for each in found}


def test_tables_of_an_older_version_are_refused_in_a_sentence(opsq: ResultsProject, celery: ResultsProject) -> None:
    celery.manage("migrate", "django_celery_results", "0011", "-v", "0")
    done = opsq.fails("migrate")
    assert "it is of an older django_celery_results, it has no date_started" in done
    assert "Traceback" not in done


@pytest.mark.parametrize(
    ("sender", "workers"),
    [("opsq", "celery"), ("celery", "opsq"), ("celery", "opsq celery"), ("opsq", "opsq celery")],
)
def test_chords_are_counted_together(
    opsq: ResultsProject, celery: ResultsProject, postgres_database: Database, sender: str, workers: str
) -> None:
    """In PostgreSQL: where two write at once, Celery gives up on SQLite."""
    opsq.database = celery.database = postgres_database
    celery.manage("migrate", "-v", "0")
    opsq.manage("migrate", "-v", "0")
    both = {"opsq": opsq, "celery": celery}
    for program in workers.split():
        both[program].worker("--prefetch-multiplier=1", program=program)
    by = both[sender]
    values = by.ask(f"""
from {sender} import chord
results = [chord([add.s(1, 1), add.s(2, 2), add.s(number)])(total.s()) for number in range(10)]
answer = [result.get(timeout=40) for result in results]
""")
    assert values == [number + 6 for number in range(10)]
    opsq.wait_for(lambda: opsq.do("answer = model('ChordCounter').objects.count()") == 0, 30, "all chords are done")


def test_saved_groups_are_restored_by_the_other(opsq: ResultsProject, celery: ResultsProject) -> None:
    celery.manage("migrate", "-v", "0")
    opsq.manage("migrate", "-v", "0")
    save = "from {0} import group\nfound = group(add.s(1), add.s(2)).apply_async()\nfound.save()\nanswer = found.id"
    restore = (
        "from {0}.result import GroupResult\nfound = GroupResult.restore({1!r}, app=app)\n"
        "answer = [each.id for each in found.results]"
    )
    for writer, reader in ((opsq, celery), (celery, opsq)):
        programs = ("opsq", "celery") if writer is opsq else ("celery", "opsq")
        group_id = writer.ask(save.format(programs[0]))
        mine = writer.ask(restore.format(programs[0], group_id))
        assert len(mine) == 2
        assert reader.ask(restore.format(programs[1], group_id)) == mine


@pytest.mark.parametrize("cache", [None, "second"])
def test_results_in_the_cache_are_read_by_the_other(
    opsq: ResultsProject, celery: ResultsProject, cache: str | None
) -> None:
    for each in (opsq, celery):
        each.more = {"RESULTS": "django-cache", **({"CACHE": cache} if cache else {})}
    calls = "answer = [each.id for each in [add.delay(2, y=3), fail.delay('no good')]]"
    answers = []
    for program, project, reader, other in (("celery", celery, opsq, "opsq"), ("opsq", opsq, celery, "celery")):
        worker = project.worker(program=program)
        ids = project.ask(calls)

        def read(of: ResultsProject = project, by: str = program, ids: list[str] = ids) -> Any:
            return of.ask(READ.format(program=by, ids=ids))

        project.wait_for(lambda read=read: all(each[0] in ("SUCCESS", "FAILURE") for each in read()), 30, "ended")
        assert worker.stop() == 0
        mine = read()
        assert read(reader, other) == mine
        answers.append([each[:4] for each in mine])
        folder = Path(f"{project.place}.cache{cache or 'default'}")
        assert any(folder.iterdir())
    assert answers[0] == answers[1]
