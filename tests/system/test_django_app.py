"""A Django project with a real worker: tasks of its apps, connections, transactions, language, time zone."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import psutil
import pytest
from support import django_project
from support.django_project import DjangoLab
from support.postgres import PostgresServer

TASKS = """
import gc
import os

from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.utils import timezone, translation

from opsq import shared_task
from opsq.signals import worker_init

from .models import Note

kept = []


@worker_init.connect
def look_into_the_database(**_told):
    Note.objects.count()
    kept.append(connection.connection)


def is_open():
    return connection.connection is not None


def count():
    opened = is_open()
    Note.objects.count()
    kept.append(connection.connection)
    return opened


@shared_task
def use_database():
    before = len(kept)
    opened = count()
    return {"opened": opened, "of_another": before > 0 and kept[0] is kept[-1], "runs": before}


@shared_task
async def use_database_async():
    return {"opened": await sync_to_async(is_open)(), "count": await Note.objects.acount()}


@shared_task
def session():  # which process of the server speaks with this one
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


@shared_task
def fork_with_open_connection():
    Note.objects.count()
    mine = is_open()
    pid = os.fork()
    if pid == 0:
        code = 7 if is_open() else 3
        try:
            Note.objects.count()
            gc.collect()  # what it has inherited must not be ended by that, it is the parent's
        except BaseException:
            code = 9
        os._exit(code)
    return mine, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), Note.objects.count() >= 0


@shared_task
def leave_transaction_open():
    transaction.atomic().__enter__()
    Note.objects.create(text="never")


@shared_task
def in_transaction():
    return connection.in_atomic_block, Note.objects.filter(text="never").count()


@shared_task
def speak(language, zone):
    before = translation.get_language(), timezone.get_current_timezone_name()
    if language:
        translation.activate(language)
        timezone.activate(zone)
    return before


@shared_task
async def speak_async(language, zone):
    return speak.run(language, zone)


@shared_task
def read(pk):
    return Note.objects.get(pk=pk).text


@shared_task
def order(text, fails):
    try:
        with transaction.atomic():
            note = Note.objects.create(text=text)
            sent = read.delay_on_commit(note.pk)
            if fails:
                raise LookupError
    except LookupError:
        pass
    return sent


@shared_task
def local_hour():
    return str(timezone.localtime().utcoffset()), timezone.get_current_timezone_name()
"""

POOLED = {
    "proj/pooled.py": """
from .settings import *

DATABASES = {"default": {**DEFAULT, "OPTIONS": {"pool": {"min_size": 1, "max_size": 1}}}}
"""
}


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DjangoLab]:
    with django_project.opened(tmp_path_factory, TASKS) as project:
        yield project


@pytest.fixture(scope="module")
def on_postgresql(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer) -> Iterator[DjangoLab]:
    with (
        postgres_server.database() as database,
        django_project.opened(tmp_path_factory, TASKS, POOLED, database, CONN_HEALTH_CHECKS=True) as project,
    ):
        yield project


@pytest.fixture
def project(request: pytest.FixtureRequest) -> DjangoLab:
    found: DjangoLab = request.getfixturevalue(getattr(request, "param", "on_sqlite"))
    return found


@pytest.fixture
def worker(project: DjangoLab) -> Iterator[Any]:
    """Starts workers; they end with the test."""

    def start(*options: str, **environment: str) -> Any:
        return project.lab.worker("-c", "1", *options, **environment)

    yield start
    project.lab.end_workers()


ON_BOTH = pytest.mark.parametrize("project", ["on_sqlite", "on_postgresql"], indirect=True)
ON_POSTGRESQL = pytest.mark.parametrize("project", ["on_postgresql"], indirect=True)
POOLS = pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])


@ON_BOTH
@POOLS
def test_a_connection_lives_as_long_as_conn_max_age_says(project: DjangoLab, worker: Any, pool: str) -> None:
    worker("-P", pool)
    assert [project.run("use_database")["opened"] for _ in range(3)] == [False] * 3
    assert [project.run("use_database_async")["opened"] for _ in range(3)] == [False] * 3
    project.lab.end_workers()
    worker("-P", pool, CONNECTION_AGE="None")
    assert [project.run("use_database")["opened"] for _ in range(3)] == [False, True, True]
    assert [project.run("use_database_async")["opened"] for _ in range(2)] == [False, True]


@ON_BOTH
@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_green_pools_treat_connections_by_greenlet(project: DjangoLab, worker: Any, pool: str) -> None:
    """And fail an `async def` task, which could wait for ever for what Django does in a thread."""
    worker("-P", pool, CONNECTION_AGE="None")
    assert [project.run("use_database")["opened"] for _ in range(3)] == [False, True, True]
    task_id = project.send("use_database_async")
    failure = project.lab.result(task_id, "FAILURE")["result"]
    assert "cannot run in a gevent or eventlet pool" in str(failure["exc_message"])
    assert project.run("use_database")["opened"]


@ON_BOTH
@POOLS
def test_an_idle_worker_holds_no_connection(project: DjangoLab, worker: Any, pool: str) -> None:
    running = worker("-P", pool)

    def held() -> int:
        if project.database is not None:
            return len(project.database.sessions())
        family = psutil.Process(running.pid).children(recursive=True)
        return sum("db.sqlite3" in file.path for process in family for file in process.open_files())

    before = held()
    for task in ("use_database", "use_database_async"):
        project.run(task)
        project.lab.wait_for(lambda: held() == before, "the connection is closed")


@ON_BOTH
def test_no_connection_is_shared_across_a_fork(project: DjangoLab, worker: Any) -> None:
    """Neither what the worker opened before it forked its children, nor what a task has open when it forks."""
    worker(CONNECTION_AGE="None")
    first = project.run("use_database")
    assert (first["runs"], first["opened"], first["of_another"]) == (1, False, False)
    assert project.run("fork_with_open_connection") == [True, 3, True]


@ON_BOTH
def test_a_transaction_that_a_task_left_open_ends_with_it(project: DjangoLab, worker: Any) -> None:
    worker(CONNECTION_AGE="None")
    project.run("leave_transaction_open")
    assert project.run("in_transaction") == [False, 0]


@ON_POSTGRESQL
@POOLS
def test_a_connection_that_the_database_has_cut_is_replaced(project: DjangoLab, worker: Any, pool: str) -> None:
    worker("-P", pool, CONNECTION_AGE="None")
    first = project.run("session")
    assert project.run("session") == first
    assert project.database is not None
    project.database.cut_off()
    project.lab.wait_for(lambda: not project.database.sessions(), "they are gone")
    assert project.run("session") != first


@pytest.mark.skipif(find_spec("psycopg_pool") is None, reason="psycopg_pool is not installed")
@ON_POSTGRESQL
@POOLS
def test_connections_of_a_pool_are_kept_by_each_process_for_itself(project: DjangoLab, worker: Any, pool: str) -> None:
    running = worker("-P", pool, DJANGO_SETTINGS_MODULE="proj.pooled")
    assert project.run("session") == project.run("session")
    first = project.run("use_database")
    assert (first["opened"], first["of_another"]) == (False, False)
    assert project.run("fork_with_open_connection") == [True, 3, True]
    assert project.run("use_database_async")["opened"] is False
    assert running.stop() == 0
    assert project.database is not None
    project.lab.wait_for(lambda: project.database and not project.database.sessions(), "all have ended")


@POOLS
def test_language_and_time_zone_end_with_the_task(project: DjangoLab, worker: Any, pool: str) -> None:
    worker("-P", pool)
    for task in ("speak", "speak_async"):
        project.run(task, "de", "Asia/Tokyo")
        assert project.run(task, None, None) == ["en", "Europe/Berlin"]


def test_calls_on_commit_are_sent_when_the_transaction_of_a_task_commits(project: DjangoLab, worker: Any) -> None:
    worker()
    assert project.lab.value(project.run("order", "three pears", False)) == "three pears"
    never = project.run("order", "nothing", True)
    project.lab.wait_for(project.lab.is_quiet, "all is done")
    assert project.lab.record(never) is None


def test_calls_on_commit_of_a_view_have_their_id_at_once(project: DjangoLab, worker: Any) -> None:
    answer = project.program(
        """
from django.db import transaction
from shop.models import Note
from shop.tasks import read
broker = proj.celery_app.broker
depth = lambda: broker.client.llen("celery")
with transaction.atomic():
    note = Note.objects.create(text="from a view")
    sent = read.apply_async_on_commit((note.pk,), countdown=0)
    inside = depth()
try:
    with transaction.atomic():
        try:
            read.delay_on_commit()
        except TypeError as error:
            refused = str(error)
        read.delay_on_commit(1)
        raise LookupError
except LookupError:
    pass
answer = [sent, inside, depth(), refused]
"""
    )
    assert answer[1:3] == [0, 1]
    assert "pk" in answer[3]
    worker()
    assert project.lab.value(answer[0]) == "from a view"


def test_the_worker_has_the_time_zone_of_the_settings(project: DjangoLab, worker: Any) -> None:
    worker()
    offset, name = project.run("local_hour")
    assert name == "Europe/Berlin"
    assert offset in ("1:00:00", "2:00:00")
    assert project.program("answer = str(proj.celery_app.timezone)") == "Europe/Berlin"
