"""Results in a Django project's database, SQLite and PostgreSQL, and in its cache."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from support.django_results import ResultsProject
from support.postgres import Database, PostgresServer
from support.processes import Spawner


@pytest.fixture
def project(
    tmp_path: Path, spawn: Spawner, redis_url: str, redis_client: redis.Redis, wait_for: Callable[..., Any]
) -> ResultsProject:
    return ResultsProject(tmp_path / "project", spawn, redis_url, redis_client, wait_for).write()


@pytest.fixture
def sqlite(project: ResultsProject) -> ResultsProject:
    """The project, its results in SQLite."""
    project.manage("migrate", "-v", "0")
    return project


@pytest.fixture
def postgres(project: ResultsProject, postgres_server: PostgresServer) -> Iterator[tuple[ResultsProject, Database]]:
    """The project, its results in PostgreSQL over connections that are kept."""
    with postgres_server.database() as database:
        project.database, project.more = database, {"KEPT": "yes"}
        project.manage("migrate", "-v", "0")
        yield project, database


def quiet(project: ResultsProject) -> bool:
    """Nothing waits, nothing is in flight."""
    inflight = sum(project.client.hlen(key) for key in project.client.scan_iter("opsq:inflight:*"))
    return not inflight and not project.client.llen("celery")


def dead(project: ResultsProject) -> dict[str, dict[str, Any]]:
    """The dead letters, by id."""
    found: Any = project.client.hgetall("opsq:dead:{celery}")
    return {key.decode(): json.loads(value) for key, value in found.items()}


def test_states_are_followed_from_the_start_to_the_end(sqlite: ResultsProject) -> None:
    sqlite.worker()
    task_id = sqlite.ask("answer = stages.delay().id")
    sqlite.wait_for(lambda: "began" in sqlite.marks(), 30, "it runs")
    started = sqlite.found(task_id)
    assert started is not None
    assert (started["status"], started["task_name"]) == ("STARTED", "proj.tasks.stages")
    assert json.loads(started["result"])["hostname"] == started["worker"]
    sqlite.let("go")
    sqlite.wait_for(lambda: "half" in sqlite.marks(), 30, "it is at its half")
    half = sqlite.ask(f"r = app.AsyncResult({task_id!r})\nanswer = [r.state, r.result, r.ready(), r.exists()]")
    assert half == ["HALF", {"done": 50}, False, True]
    sqlite.let("on")
    assert sqlite.ask(f"answer = app.AsyncResult({task_id!r}).get(timeout=30)") == "whole"
    ended = sqlite.found(task_id)
    assert ended is not None
    assert ended["date_started"] == started["date_started"]
    assert ended["date_created"] == started["date_created"]
    assert ended["date_done"] > started["date_done"]
    after = sqlite.ask(f"""
r = app.AsyncResult({task_id!r})
app.backend.store(r.id, "LATE", None)
answer = [r.state]
r = app.AsyncResult(r.id)
r.forget()
answer += [app.AsyncResult(r.id).state, r.exists()]
""")
    assert after == ["SUCCESS", "PENDING", False]


def test_without_extended_results_the_call_is_not_in_the_row(sqlite: ResultsProject) -> None:
    sqlite.more = {"PLAIN": "1"}
    sqlite.worker()
    assert sqlite.value("add.delay(1, 2)") == 3
    with pytest.raises(AssertionError, match="ValueError: no"):
        sqlite.value("fail.delay('no')")
    rows = sqlite.rows()
    assert [row["status"] for row in rows] == ["SUCCESS", "FAILURE"]
    for name in ("task_name", "task_args", "task_kwargs", "worker", "periodic_task_name"):
        assert [row[name] for row in rows] == [None, None]
    assert rows[1]["traceback"].endswith("ValueError: no\n")


def test_many_results_are_written_together(postgres: tuple[ResultsProject, Database]) -> None:
    project, database = postgres
    ids = project.ask("answer = [add.delay(number, 1).id for number in range(400)]")
    project.worker()
    project.wait_for(lambda: quiet(project), 40, "all are done")
    with database.connect() as connection:
        table = "django_celery_results_taskresult"
        found = connection.execute(f"SELECT task_id, result FROM {table} WHERE status = 'SUCCESS'").fetchall()
        [(transactions,)] = connection.execute(f"SELECT count(DISTINCT xmin::text) FROM {table}").fetchall()
    assert dict(found) == {task_id: str(number + 1) for number, task_id in enumerate(ids)}
    assert transactions < 350


def test_while_the_database_takes_nothing_no_result_is_lost(postgres: tuple[ResultsProject, Database]) -> None:
    project, database = postgres
    worker = project.worker()
    assert project.value("late.delay(0)") == 0
    with database.connect() as connection:
        connection.execute("ALTER TABLE django_celery_results_taskresult RENAME TO away")
        ids = project.ask("answer = [late.delay(number).id for number in range(1, 21)]")
        project.wait_for(lambda: "cannot write results in the database" in worker.output(), 30, "it is told")
        assert "lost the broker" not in worker.output()
        assert "(manage.py migrate makes the tables)" in worker.output()
        assert not quiet(project)
        connection.execute("ALTER TABLE away RENAME TO django_celery_results_taskresult")
        project.wait_for(lambda: quiet(project), 40, "all are done")
        for pid in database.sessions() - {connection.info.backend_pid}:
            connection.execute("SELECT pg_terminate_backend(%s)", [pid])
    assert sorted(int(row["result"]) for row in project.rows(*ids)) == list(range(1, 21))
    assert project.value("late.delay(21)", 40) == 21
    assert sorted(map(int, project.marks())) == list(range(22)), "each has run once"
    assert not dead(project)


def test_a_result_that_the_database_refuses_for_good_is_a_dead_letter(
    postgres: tuple[ResultsProject, Database],
) -> None:
    """A row that no table can hold keeps nobody waiting: three tries, then its message is buried with the reason."""
    project, _database = postgres
    long = "x" * 300
    ids = project.ask(f"answer = [add.apply_async((1, 1), task_id=i).id for i in [*'abcdefgh', {long!r}, *'ijkl']]")
    project.worker()
    project.wait_for(lambda: quiet(project), 40, "all are settled")
    assert "its outcome could not be written" in dead(project)[long]["reason"]
    assert {row["task_id"] for row in project.rows()} == set(ids) - {long}


def test_odd_texts_do_not_cost_a_result(postgres: tuple[ResultsProject, Database]) -> None:
    project, _database = postgres
    project.worker("-n", "w" * 120 + "@here")
    assert project.value(r"worded.delay('nul \x00 \U0001f600')") == "nul \x00 \U0001f600"
    with pytest.raises(AssertionError, match="ValueError"):
        project.value(r"fail.delay('nul \x00')")
    good, bad = project.rows()
    assert len(good["worker"]) == 100
    assert "ValueError: nul " in bad["traceback"]
    assert "\x00" not in bad["traceback"]


@pytest.mark.parametrize("pool", ["threads", "asyncio", "solo"])
def test_other_pools_store_results_too(sqlite: ResultsProject, pool: str) -> None:
    sqlite.worker("-P", pool, "-c", "4")
    sums = sqlite.ask(
        "from opsq import group\nanswer = group(add.s(n, 1) for n in range(30)).apply_async().get(timeout=30)"
    )
    assert sums == list(range(1, 31))


def test_workflows_whose_results_are_in_the_database(postgres: tuple[ResultsProject, Database]) -> None:
    project, _database = postgres
    project.worker("-c", "2")
    assert project.ask("""
from opsq import chain, chord, group
nested = chord([chain(add.s(1, 1), group(add.s(0), add.s(2))), quiet.s(3)])(add.s([]))
chained = chain(add.s(1, 1), group(add.s(10), add.s(20)), total.s(), add.s(1000)).apply_async()
failed = chord([add.s(1, 1), fail.s("no")])(total.s())
answer = [nested.get(timeout=30), chained.get(timeout=30)]
try:
    failed.get(timeout=30, follow_parents=False)
except Exception as error:
    answer.append(type(error).__name__)
""") == [[[2, 4], 3], 1034, "ChordError"]


def test_a_part_of_a_chord_that_is_told_twice_is_counted_once(postgres: tuple[ResultsProject, Database]) -> None:
    """As Celery counts down without looking, the rows of all parts are looked at before a chord is complete."""
    project, _database = postgres
    assert project.ask("""
from opsq import chord
from opsq.execution.outcome import ChordPart
result = chord([add.s(1, 1), add.s(2, 2), add.s(3, 3)])(total.s())
chords, parts = app.backend.chords, result.parent.results
def tell(number):
    own_id = parts[number].id
    member = chords.member(own_id, "SUCCESS", number)
    part = ChordPart(result.parent.id, own_id, number, member, {"task": "x", "options": {}}, None)
    return chords.count([chords.part(part)]), model("ChordCounter").objects.get().count
answer = [tell(0), tell(0), tell(1), tell(0), tell(2)[0] == [result.parent.id]]
app.control.purge()
""") == [[[], 2], [[], 1], [[], 1], [[], 1], True]


def test_a_chord_whose_part_was_purged_fails_when_its_results_would_expire(sqlite: ResultsProject) -> None:
    chords = sqlite.ask("""
from opsq import chord
def sent(*queues):
    result = chord([add.s(1, 1).set(queue=queue) for queue in queues])(total.s())
    return f"opsq:chord:{result.parent.id}", result.parent.id, result.id
answer = sent("celery", "nobody"), sent("nobody", "nobody")
""")
    assert sqlite.client.delete("nobody")
    first = chords[0][0]
    sent_at = sqlite.client.hget(first, "at")
    sqlite.worker()
    sqlite.wait_for(lambda: sqlite.client.hget(first, "at") != sent_at, 30, "one part is counted")
    for key, group_id, _ in chords:
        sqlite.client.hset(key, "at", str(int((time.time() - 3600) * 1000)))
        sqlite.client.zadd("opsq:chords", {group_id: 0})
    for count, (_, _, body_id) in zip((1, 0), chords, strict=True):
        row = sqlite.wait_for(lambda body_id=body_id: sqlite.found(body_id), 30, "the body has failed")
        assert row["status"] == "FAILURE"
        assert f"only {count} of 2 parts have ended before the chord expired" in row["result"]
    assert sqlite.do('answer = model("ChordCounter").objects.count()') == 0
    sqlite.wait_for(lambda: not sqlite.client.exists("opsq:chords"), 30, "nobody looks after them any more")


def test_who_waits_is_told_when_a_result_is_there(sqlite: ResultsProject) -> None:
    with sqlite.client.pubsub() as told:
        told.subscribe("celery-task-meta-known")
        sqlite.worker()
        sqlite.ask("add.apply_async((1, 2), task_id='known')")

        def message() -> Any:
            return told.get_message(ignore_subscribe_messages=True, timeout=1)

        sqlite.wait_for(message, 30, "it is told")
        assert (sqlite.found("known") or {})["status"] == "SUCCESS"


def test_a_group_is_saved_and_a_change_told_while_somebody_else_writes_to_sqlite(sqlite: ResultsProject) -> None:
    answer = sqlite.ask("""
import sqlite3, threading
from django.db import connection
from opsq import group
from opsq.contrib.django.models import PeriodicTasks
from opsq.result import GroupResult

def beside_a_writer(act):
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, other.rollback)
    timer.start()
    act()
    timer.join()
    other.close()

connection.cursor().execute("PRAGMA busy_timeout = 60000")
PeriodicTasks.update_changed()
before = PeriodicTasks.last_change()
first, second = (group(add.s(n) for n in range(count)).apply_async() for count in (2, 3))
beside_a_writer(first.save)
second.id = first.id
beside_a_writer(second.save)
beside_a_writer(PeriodicTasks.update_changed)
answer = [len(GroupResult.restore(first.id).results), PeriodicTasks.last_change() > before]
""")
    assert answer == [3, True]


def test_old_results_are_removed_by_the_beats_own_entry(sqlite: ResultsProject) -> None:
    assert "celery.backend_cleanup" in sqlite.ask(
        "from opsq.beat.definitions import of_app\nanswer = list(of_app(app).entries)"
    )
    sqlite.do("""
from datetime import timedelta
for table, key in (("TaskResult", "task_id"), ("GroupResult", "group_id")):
    for name, age in (("old", 3700), ("young", 3500)):
        model(table).objects.create(**{key: name})
        model(table).objects.filter(**{key: name}).update(date_done=now() - timedelta(seconds=age))
""")
    sqlite.worker()
    sqlite.ask("app.send_task('celery.backend_cleanup').get(timeout=30)")
    left = sqlite.do(
        "answer = [[each.task_id for each in model('TaskResult').objects.all()],"
        "[each.group_id for each in model('GroupResult').objects.all()]]"
    )
    assert "young" in left[0]
    assert "old" not in left[0]
    assert left[1] == ["young"]


def test_the_command_line_shows_results_of_the_database(sqlite: ResultsProject) -> None:
    sqlite.worker()
    ids = [sqlite.ask(f"answer = add.apply_async(({number}, 1)).id") for number in range(3)]
    sqlite.wait_for(lambda: len(sqlite.rows(*ids)) == 3, 30, "all have ended")
    listed = json.loads(sqlite._run("-m", "opsq", "-A", "proj", "results", "--json", "--limit", "2"))["results"]
    assert [each["id"] for each in listed] == [ids[2], ids[1]]


def test_a_chord_that_follows_a_task_ends_with_results_in_the_cache(project: ResultsProject) -> None:
    project.more = {"RESULTS": "django-cache"}
    project.worker()
    assert (
        project.ask("""
from opsq import chain, group
answer = chain(add.s(1, 1), group(add.s(10), add.s(20)), total.s()).apply_async().get(timeout=30)
""")
        == 34
    )
    project.more = {"RESULTS": "django-cache", "CACHE": "nowhere"}
    with pytest.raises(AssertionError, match="CACHES has none of this name"):
        project.ask("answer = app.backend.url")
