"""The beat on the tables of django-celery-beat, in a Django project of its own."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis
from support.django_beat import SETTINGS, DjangoProject
from support.processes import Spawner


@pytest.fixture
def project(
    tmp_path: Path,
    spawn: Spawner,
    redis_url: str,
    redis_client: redis.Redis,
    wait_for: Callable[..., Any],
    request: pytest.FixtureRequest,
) -> DjangoProject:
    made = DjangoProject(tmp_path / "project", spawn, redis_url, redis_client, wait_for).write()
    if getattr(request, "param", "sqlite") == "postgresql":
        made.database = request.getfixturevalue("postgres_database")
    made.manage("migrate", "-v", "0")
    return made


ON_BOTH = pytest.mark.parametrize("project", ["sqlite", "postgresql"], indirect=True)
ON_POSTGRESQL = pytest.mark.parametrize("project", ["postgresql"], indirect=True)


@ON_BOTH
def test_every_kind_of_entry_is_sent_as_its_row_says(project: DjangoProject) -> None:
    project.do("""
every(1, "all columns", args='[1, "x"]', kwargs='{"to": "all"}', headers='{"mine": 7}', queue="mail", priority=3,
    expire_seconds=600, one_off=True)
clock = model("ClockedSchedule").objects.create(clocked_time=now() - timedelta(minutes=5))
model("PeriodicTask").objects.create(name="was due", task="proj.tasks.who", clocked=clock, one_off=True)
every(3600, "starts", start_time=now() - timedelta(seconds=3))
every(1, "later", start_time=now() + timedelta(days=1))
every(1, "expired", expires=now() - timedelta(seconds=1))
every(1, "rests", enabled=False)
every(1, "broken", args="{no")
endless = model("IntervalSchedule").objects.create(every=2**31 - 1, period="days")
model("PeriodicTask").objects.create(name="endless", task="proj.tasks.who", interval=endless)
nightly = model("CrontabSchedule").objects.create(minute="30", hour="3", timezone="Asia/Kolkata")
model("PeriodicTask").objects.create(name="nightly", task="proj.tasks.who", crontab=nightly)
""")
    beat = project.beat()
    project.wait_sent("was due")
    project.wait_sent("starts")
    project.wait_sent("all columns", queue="mail\x06\x163")
    project.wait_for(lambda: not project.row("all columns")["enabled"], 30, "the one-off rests")
    [message] = project.messages("mail\x06\x163")
    assert message["headers"]["mine"] == 7
    assert message["headers"]["expires"] is not None
    assert message["headers"]["kwargsrepr"] == "{'to': 'all'}"
    known = project.schedule()
    assert known["nightly"]["zone"] == "Asia/Kolkata"
    assert known["nightly"]["next"] % 86_400 == 22 * 3600
    assert known["later"]["next"] > time.time() + 80_000
    assert known["rests"]["paused"]
    assert known["expired"]["paused"]
    assert set(project.sent()) == {"was due", "starts"}
    assert "the entry 'broken' of the database is left out: its args are no JSON" in beat.output()
    assert "the entry 'endless' of the database is left out: " in beat.output()
    assert not project.row("expired")["enabled"]
    assert not project.row("was due")["enabled"]
    assert beat.stop() == 0


def test_a_task_reads_the_name_of_its_entry_and_the_row_counts_the_runs(project: DjangoProject) -> None:
    project.do('every(1, "tick")')
    project.beat()
    argv = [project.python, "-m", "opsq", "-A", "proj", "worker", "-l", "info", "-c", "1"]
    worker = project.spawn(argv, env=project.environment, cwd=project.folder)
    project.wait_for(lambda: worker.output().count("succeeded") >= 2, 30, "two runs")
    assert "'tick'" in worker.output()
    project.wait_for(lambda: project.row("tick")["total_run_count"] >= 2, 30, "the row counts")
    assert project.row("tick")["last_run_at"] is not None


def test_what_the_code_defines_becomes_rows_that_the_admin_may_disable(project: DjangoProject) -> None:
    beat = project.beat()
    project.wait_for(lambda: "of the code" in project.schedule(), 30, "the entry is known")
    row = project.row("of the code")
    assert (row["queue"], row["expire_seconds"], row["enabled"]) == ("code", 60, True)
    assert beat.stop() == 0
    project.do("model('PeriodicTask').objects.update(enabled=False)")
    project.beat()
    project.wait_for(lambda: project.schedule()["of the code"]["paused"], 30, "it rests")
    assert project.row("of the code")["date_changed"] == row["date_changed"]


@ON_BOTH
def test_edits_are_followed_without_a_restart_and_nothing_is_missed_or_doubled(project: DjangoProject) -> None:
    project.do('every(3600, "edited"); every(1, "steady")')
    beat = project.beat()
    project.wait_sent("steady")
    project.do("""
row = model("PeriodicTask").objects.get(name="edited")
row.interval = model("IntervalSchedule").objects.get(every=1, period="seconds")
row.save()
""")
    edited_at = time.time()
    project.wait_sent("edited", 2)
    project.do('model("PeriodicTask").objects.get(name="steady").delete()')
    project.wait_for(lambda: "steady" not in project.schedule(), 30, "the deleted one is forgotten")
    project.do("""
model("PeriodicTask").objects.filter(name="edited").update(enabled=False)
model("PeriodicTasks").update_changed()
""")
    project.wait_for(lambda: project.schedule()["edited"]["paused"], 30, "it rests")
    dues = due_times(project, "steady")
    assert {round(after - before, 3) for before, after in pairwise(dues)} <= {1.0}
    edited = due_times(project, "edited")
    assert len(set(edited)) == len(edited)
    assert edited[0] < edited_at + 5
    assert beat.alive()


@ON_BOTH
def test_a_run_that_could_not_be_noted_is_noted_by_the_next_beat_and_not_sent_again(project: DjangoProject) -> None:
    project.patience_s = 0.1
    beat = project.beat()
    project.wait_for(lambda: "of the code" in project.schedule(), 30, "the first reading is over")
    project.do('every(3600, "once", one_off=True, start_time=now() + timedelta(seconds=9)); every(1, "often")')
    project.wait_sent("often")
    with project.locked():
        before = project.sent().count("often")
        project.wait_sent("once")
        project.wait_sent("often", before + 3)
        assert beat.output().count("the schedule's database cannot be used") == 1
        assert beat.stop(signal.SIGKILL) != 0
    assert project.row("once")["enabled"]
    project.beat()
    project.wait_for(lambda: not project.row("once")["enabled"], 30, "it rests")
    assert project.row("once")["last_run_at"] is not None
    assert project.sent().count("once") == 1
    project.do(
        'model("PeriodicTask").objects.filter(name="often").update(enabled=False); '
        'model("PeriodicTasks").update_changed()'
    )
    project.wait_for(lambda: project.schedule()["often"]["paused"], 30, "the other one rests")
    assert project.row("often")["total_run_count"] == project.sent().count("often")


@ON_POSTGRESQL
def test_a_beat_that_starts_while_the_database_is_away_forgets_no_run(project: DjangoProject) -> None:
    beat = project.beat()
    project.wait_for(lambda: "of the code" in project.schedule(), 30, "the first reading is over")
    project.do('every(3600, "once", one_off=True, start_time=now() + timedelta(seconds=6)); every(1, "often")')
    project.wait_sent("often")
    assert project.database is not None
    with project.database.away():
        before = project.sent().count("often")
        project.wait_sent("once")
        project.wait_sent("often", before + 2)
        assert beat.stop(signal.SIGKILL) != 0
        project.beat(ready="the schedule's database cannot be used")
    project.wait_for(lambda: not project.row("once")["enabled"], 30, "it rests")
    assert project.row("once")["last_run_at"] is not None
    project.do('model("PeriodicTask").objects.update(enabled=False); model("PeriodicTasks").update_changed()')
    project.wait_for(lambda: project.schedule()["often"]["paused"], 30, "the other one rests")
    assert project.sent().count("once") == 1
    assert project.row("often")["total_run_count"] == project.sent().count("often")


@ON_POSTGRESQL
def test_the_schedule_goes_on_when_the_database_has_cut_its_connections(project: DjangoProject) -> None:
    project.do('every(1, "tick")')
    beat = project.beat()
    project.wait_sent("tick")
    for _round in range(2):
        seen = project.row("tick")["total_run_count"]
        assert project.database is not None
        project.database.cut_off()
        project.wait_for(lambda seen=seen: project.row("tick")["total_run_count"] > seen, 30, "the row counts again")
    assert beat.stop() == 0
    assert project.row("tick")["total_run_count"] == project.sent().count("tick")


@ON_POSTGRESQL
def test_an_entry_of_the_code_that_its_column_cannot_hold_runs_and_keeps_no_other_from_its_row(
    project: DjangoProject,
) -> None:
    (project.folder / "proj" / "settings.py").write_text(
        SETTINGS
        + """
CELERY_BEAT_SCHEDULE["odd"] = {"task": "proj.tasks.who", "schedule": 7200.5}
CELERY_BEAT_SCHEDULE["long"] = {"task": "proj.tasks.who", "schedule": 3600, "options": {"queue": 201 * "q"}}
from opsq.schedules import crontab
minutes = ",".join(f"{first}-59/{first + 1}" for first in range(59))
CELERY_BEAT_SCHEDULE["crowded"] = {"task": "proj.tasks.who", "schedule": crontab(minute=minutes)}
CELERY_BEAT_SCHEDULE["urgent"] = {"task": "proj.tasks.who", "schedule": 3600, "options": {"priority": -1}}
"""
    )
    beat = project.beat()
    odd = {"odd", "long", "crowded", "urgent"}
    project.wait_for(lambda: project.row("of the code").get("queue") == "code", 30, "what fits has its row")
    project.wait_for(lambda: {"of the code", *odd} <= set(project.schedule()), 30, "all are known")
    for name in odd:
        assert project.row(name) == {}
        assert f"the entry {name!r} does not fit into its row" in beat.output()


def test_beats_that_are_killed_leave_no_gap_no_doubled_run_and_a_true_count(project: DjangoProject) -> None:
    project.do('every(1, "tick")')
    beats = [project.beat(), project.beat(ready="standing by")]
    for _round in range(3):
        project.wait_sent("tick", len(project.sent()) + 1)
        beats.pop(0).stop(signal.SIGKILL)
        beats.append(project.beat(ready="standing by"))
    project.wait_sent("tick", len(project.sent()) + 1)
    project.do('model("PeriodicTask").objects.update(enabled=False); model("PeriodicTasks").update_changed()')
    project.wait_for(lambda: project.schedule()["tick"]["paused"], 30, "it rests")
    dues = due_times(project, "tick")
    assert len(set(dues)) == len(dues)
    assert all((after - before) % 1 < 0.001 for before, after in pairwise(dues))
    assert project.row("tick")["total_run_count"] == len(dues)


def due_times(project: DjangoProject, name: str) -> list[float]:
    """For which times an entry was sent."""
    headers = [message["headers"] for message in project.messages()]
    return [told["x-opsq-due"] for told in headers if told["periodic_task_name"] == name]
