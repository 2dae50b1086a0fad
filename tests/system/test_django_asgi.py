"""Views of an ASGI server that send tasks and await their results do not stall the others, whatever the broker does."""

from __future__ import annotations

import json
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from support import django_project
from support.django_project import DjangoLab

TASKS = """
from opsq import shared_task


@shared_task
def double(number):
    return 2 * number


@shared_task
def fail():
    raise LookupError("nothing there")
"""
VIEWS = """
import asyncio

from django.http import JsonResponse
from django.urls import path

from opsq import chain, group
from opsq.exceptions import OpsqError
from shop.tasks import double, fail


async def quick(request):
    return JsonResponse({"quick": True})


async def send(request):
    result = await double.adelay(int(request.GET["number"]))
    return JsonResponse({"value": await result.aget(timeout=20)})


async def workflows(request):
    whole = await group(double.s(number) for number in range(3)).aapply_async()
    last = await chain(double.s(1), double.s()).adelay()
    values = [await whole.aget(timeout=20), await last.aget(timeout=20)]
    try:
        await (await chain(fail.s(), double.s()).adelay()).aget(timeout=20)
    except LookupError as error:
        values.append(str(error))
    return JsonResponse({"values": values})


async def many(request):
    sent = [await double.adelay(number) for number in range(300)]
    values = await asyncio.gather(*(result.aget(timeout=20) for result in sent))
    return JsonResponse({"sum": sum(values)})


async def away(request):
    try:
        await (await double.adelay(1)).aget(timeout=3)
    except OpsqError as error:
        return JsonResponse({"error": type(error).__name__})


urlpatterns = [path(view.__name__, view) for view in (quick, send, workflows, many, away)]
"""
ASGI = """
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
from django.core.asgi import get_asgi_application

application = get_asgi_application()
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DjangoLab]:
    settings = django_project.FILES["proj/settings.py"] + 'ALLOWED_HOSTS = ["*"]\n'
    files = {"proj/urls.py": VIEWS, "proj/asgi.py": ASGI, "proj/settings.py": settings}
    with django_project.opened(tmp_path_factory, TASKS, files) as project:
        yield project


class Site:
    """The project under uvicorn: one process, one event loop."""

    def __init__(self, project: DjangoLab, **environment: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        argv = [sys.executable, "-m", "uvicorn", "proj.asgi:application", "--port", str(self.port)]
        env = {**project.lab.environment, **environment}
        self.running = project.lab.spawn(argv, env=env, cwd=project.folder)
        project.lab.wait_for(lambda: "running on" in self.running.output(), "it serves", 30)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=60) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def site(project: DjangoLab) -> Iterator[Site]:
    site = Site(project)
    worker = project.lab.worker("-P", "solo")
    yield site
    assert worker.stop() == 0
    site.running.stop()


def test_views_send_tasks_and_await_them(site: Site) -> None:
    assert site.get("send?number=21") == {"value": 42}
    assert site.get("workflows") == {"values": [[0, 2, 4], 4, "nothing there"]}


def test_results_in_the_database_are_awaited_too(project: DjangoLab) -> None:
    """In the thread that Django has for such code: no connection stays open."""
    settings = "from .settings import *\n\nCELERY_RESULT_BACKEND = 'django-db'\n"
    (project.folder / "proj" / "in_database.py").write_text(settings)
    environment = {"DJANGO_SETTINGS_MODULE": "proj.in_database", "CELERY_TASK_DEFAULT_QUEUE": "database"}
    worker = project.lab.worker("-P", "solo", **environment)
    other = Site(project, **environment)
    assert other.get("send?number=4") == {"value": 8}
    assert other.get("workflows") == {"values": [[0, 2, 4], 4, "nothing there"]}
    server = psutil.Process(other.running.pid)
    project.lab.wait_for(
        lambda: not any(file.path.endswith("db.sqlite3") for file in server.open_files()),
        "the connections end with their requests, which end after their answers",
    )
    assert worker.stop() == 0
    other.running.stop()


def test_many_that_await_share_one_connection(site: Site, project: DjangoLab) -> None:
    def connected() -> int:
        return int(project.lab.redis.info("stats")["total_connections_received"])

    before = connected()
    assert site.get("many") == {"sum": sum(2 * number for number in range(300))}
    assert connected() - before < 50


def test_a_broker_that_hangs_stalls_no_other_request(project: DjangoLab) -> None:
    """It takes connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        site = Site(project, OPSQ_BROKER_URL=url)
        with ThreadPoolExecutor(8) as pool:
            sending = [pool.submit(site.get, "away") for _ in range(8)]
            began = time.monotonic()
            answered = 0
            while not any(each.done() for each in sending) and time.monotonic() - began < 2:
                assert site.get("quick") == {"quick": True}
                answered += 1
            assert answered >= 3
            assert not any(each.done() for each in sending)
            site.running.process.kill()
            for each in sending:
                each.exception()


def test_a_broker_that_is_away_is_an_error_of_that_request_alone(project: DjangoLab) -> None:
    site = Site(project, OPSQ_BROKER_URL="redis://127.0.0.1:1/0")
    assert site.get("away") == {"error": "OperationalError"}
    assert site.get("quick") == {"quick": True}
    site.running.stop()
