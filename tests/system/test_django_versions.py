"""The oldest and the newest Django that is supported: what of a project depends on it, with a real worker and beat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support import django_world
from support.django_project import FILES
from support.django_world import SETTINGS, World

PROJECT = f"""{SETTINGS}
INSTALLED_APPS = [
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.messages", "opsq.contrib.django", "shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{{
    "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
    "OPTIONS": {{"context_processors": [
        "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]}},
}}]
ROOT_URLCONF = "proj.urls"
ALLOWED_HOSTS = ["localhost"]
CELERY_BROKER_URL = os.environ["BROKER"]
CELERY_RESULT_BACKEND = "django-db"
CELERY_BEAT_SCHEDULER = "django"
TASKS = {{"default": {{"BACKEND": "opsq.contrib.django.tasks.OpsqBackend"}}}}
"""

TASKS = """
from django.db import connection
from INTERFACE import task

from opsq import shared_task

from .models import Note


@shared_task(bind=True)
def write(self, text):
    opened = connection.connection is not None
    Note.objects.create(text=text)
    return opened, self.request.get("periodic_task_name")


@task
def count(text):
    return Note.objects.filter(text=text).count()


@task
async def count_in_a_loop(text):
    return await Note.objects.filter(text=text).acount()
"""

URLS = """
from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
"""


@pytest.fixture(scope="module", params=["4.2", "6.0"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    files = {
        **{name: FILES[name] for name in ("proj/__init__.py", "proj/celery.py", "shop/models.py")},
        "proj/settings.py": PROJECT,
        "proj/urls.py": URLS,
        "shop/tasks.py": TASKS,
    }
    with django_world.opened(tmp_path_factory, request.param, files) as world:
        world.do(
            "from django.core.management import call_command\ncall_command('migrate', run_syncdb=True, verbosity=0)"
        )
        world.start("worker", "-l", "info", "-c", "1")
        yield world


def value_of(world: World, task_id: str) -> Any:
    """What a call has returned."""
    return world.do("from opsq.result import AsyncResult\nanswer = AsyncResult(i).get(timeout=30)", i=task_id)


def test_it_is_this_django_without_fault(world: World) -> None:
    found: str = world.do("import django\nanswer = django.__version__")
    assert found.startswith(world.version)
    world.do(
        """
        from django.core.management import call_command
        call_command("check", fail_level="WARNING")
        call_command("makemigrations", "opsq", check_changes=True, dry_run=True, verbosity=0)
        """
    )


def test_calls_wait_for_the_transaction_and_connections_end_with_the_task(world: World) -> None:
    kept, dropped, waited = world.do(
        """
        from django.db import transaction
        from opsq.result import AsyncResult
        from shop import tasks
        with transaction.atomic():
            kept = tasks.write.delay_on_commit("kept")
            waited = not AsyncResult(kept).exists()
        try:
            with transaction.atomic():
                dropped = tasks.write.delay_on_commit("dropped")
                raise LookupError
        except LookupError:
            pass
        answer = kept, dropped, waited
        """
    )
    assert value_of(world, kept) == [False, None]
    again = world.do("from shop import tasks\nanswer = tasks.write.delay('again').id")
    assert value_of(world, again) == [False, None]
    assert waited
    assert world.do("from shop.models import Note\nanswer = Note.objects.filter(text='dropped').exists()") is False
    known = world.do(
        "from opsq.result import AsyncResult\nanswer = [AsyncResult(i).exists() for i in ids]", ids=[kept, dropped]
    )
    assert known == [True, False]


def test_schedules_in_the_database_run(world: World) -> None:
    world.do(
        """
        from opsq.contrib.django.models import IntervalSchedule, PeriodicTask
        often = IntervalSchedule.objects.create(every=1, period="seconds")
        PeriodicTask.objects.create(name="often", task="shop.tasks.write", interval=often, args='["often"]')
        """
    )
    beat = world.start("beat", "-l", "info", ready="beat: ticking")
    count = "from shop.models import Note\nanswer = Note.objects.filter(text='often').count()"
    world.wait_for(lambda: world.do(count) >= 2, "it has run twice")
    runs = (
        "from opsq.contrib.django.models import PeriodicTask\n"
        "answer = PeriodicTask.objects.get(name='often').total_run_count"
    )
    world.wait_for(lambda: world.do(runs) >= 2, "its row says so")
    assert beat.stop() == 0, beat.report()


def test_the_admin_shows_schedules_and_results(world: World) -> None:
    done = world.do("from shop import tasks\nanswer = tasks.write.delay('shown').id")
    value_of(world, done)
    page: str = world.do(
        """
        from django.contrib.auth.models import User
        from django.test import Client
        from opsq.contrib.django.models import IntervalSchedule, PeriodicTask
        hourly = IntervalSchedule.objects.create(every=1, period="hours")
        PeriodicTask.objects.create(name="hourly", task="shop.tasks.write", interval=hourly, enabled=False)
        client = Client(headers={"host": "localhost"})
        client.force_login(User.objects.create_superuser("root"))
        pages = ("/admin/opsq/periodictask/", "/admin/opsq/taskresult/")
        answer = "".join(client.get(page).content.decode() for page in pages)
        """
    )
    assert done in page
    assert "hourly" in page
    assert 'value="run_now"' in page


def test_djangos_own_tasks_run_beside_shared_ones(world: World) -> None:
    written = world.do("from shop import tasks\nanswer = tasks.write.delay('for the interface').id")
    value_of(world, written)
    for name in ("count", "count_in_a_loop"):
        answer = world.do(
            f"""
            import time
            from shop import tasks
            until = time.monotonic() + 30
            sent = tasks.{name}.enqueue("for the interface")
            while not sent.is_finished and time.monotonic() < until:
                time.sleep(0.01)
                sent.refresh()
            answer = str(sent.status), sent.return_value
            """
        )
        assert answer == ("SUCCESSFUL", 1)
