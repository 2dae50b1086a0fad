"""The stories of docs/from-celery.md: a plain program, Django, Flask, FastAPI, a mixed fleet."""

from __future__ import annotations

import json
import shlex
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support import django_example, documents
from support.django_example import Example
from support.processes import Running, Spawner

DOCUMENT = documents.ROOT / "docs" / "from-celery.md"
OPSQ = Path(sys.executable).parent / "opsq"
OLD = (
    documents.files(DOCUMENT)["shop.py"]
    .replace("from opsq", "from celery")
    .replace("default_retry_delay=1", "default_retry_delay=0.01")
    .replace('"shop', '"old_shop')
)


def line_of(name: str) -> list[str]:
    """The words of the command line that starts the worker of a story."""
    (words,) = [words for words in documents.commands(DOCUMENT) if f"{name}" in " ".join(words) and "worker" in words]
    return words


@pytest.fixture
def place(tmp_path: Path, redis_url: str, spawn: Spawner, wait_for: Callable[..., Any]) -> Any:
    """A folder with the programs; `place(argv, ready)` starts one there."""
    for name, text in documents.files(DOCUMENT).items():
        (tmp_path / name).write_text(text)

    def start(argv: list[Any], ready: str) -> Running:
        environment = {"OPSQ_BROKER_URL": redis_url, "CELERY_BROKER_URL": redis_url, "PYTHONPATH": str(tmp_path)}
        running = spawn(argv, env={**environment, "CELERY_RESULT_BACKEND": redis_url}, cwd=tmp_path)
        wait_for(lambda: ready in running.output() or not running.alive(), timeout=30, what=shlex.join(map(str, argv)))
        assert running.alive(), running.output()
        return running

    return start


def ask(url: str, **form: Any) -> Any:
    data = urllib.parse.urlencode(form).encode() if form else None
    with urllib.request.urlopen(url, data, timeout=10) as answer:
        return json.load(answer)


def send_json(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def value_of(url: str, wait_for: Callable[..., Any]) -> Any:
    shown: dict[str, Any] = {}

    def is_ready() -> bool:
        shown.update(ask(url))
        return bool(shown["ready"])

    wait_for(is_ready, what=url)
    return shown["value"]


def run(spawn: Spawner, tmp_path: Path, redis_url: str, *words: str) -> tuple[int, str]:
    done = spawn([OPSQ, *words], env={"OPSQ_BROKER_URL": redis_url}, cwd=tmp_path)
    return done.wait(30), done.output()


def test_a_plain_program(place: Any, spawn: Spawner, tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "old_shop.py").write_text(OLD)
    code, text = run(spawn, tmp_path, redis_url, "migrate-code", "old_shop.py", "--write")
    assert (code, "3 imports in 1 file changed" in text) == (0, True), text
    worker = place([OPSQ, *line_of("old_shop")], " ready.")
    words = ("-A", "old_shop", "run", "task", "old_shop.charge", '["o-1", 5]', "--wait")
    code, text = run(spawn, tmp_path, redis_url, *words)
    assert (code, json.loads(text.splitlines()[-1])) == (0, {"order": "o-1", "charged": 5})
    assert worker.stop() == 0


def test_django(spawn: Spawner, tmp_path: Path, redis_url: str, wait_for: Callable[..., Any]) -> None:
    """The Celery project that the example was, moved as the story says; its pages send and read."""
    shop = Example(django_example.original(tmp_path / "shop"), spawn, redis_url)
    (line,) = [words for words in documents.commands(DOCUMENT) if words[:2] == ["worker", "-B"]]
    migrate = ["migrate-code", ".", "--write"]
    assert migrate in documents.commands(DOCUMENT)
    done = spawn([OPSQ, *migrate], cwd=shop.folder)
    assert done.wait() == 0, done.output()
    settings = shop.folder / "proj" / "settings.py"
    text = settings.read_text().replace('    "django_celery_beat",\n', "")
    settings.write_text(text.replace('"django_celery_results",', '"opsq.contrib.django",'))
    shop.manage("migrate", "-v", "0")
    shop.schedule("often", "shop.tasks.count_packed", 1)
    worker = shop.start("-m", "opsq", *line, ready=" ready.")
    assert shop.ordered("pears") == django_example.packed("pears")
    wait_for(lambda: "shop.tasks.count_packed" in worker.output(), 30, "the schedule runs")
    assert worker.stop() == 0


@pytest.mark.skipif(find_spec("flask") is None, reason="flask is not installed")
def test_flask(place: Any, free_port: Callable[[], int], wait_for: Callable[..., Any]) -> None:
    port = free_port()
    worker = place([OPSQ, *line_of("flask_shop")], " ready.")
    place([sys.executable, "-m", "flask", "--app", "flask_shop", "run", "-p", str(port)], "Running on")
    made = ask(f"http://127.0.0.1:{port}/orders", count=3)
    assert value_of(f"http://127.0.0.1:{port}/orders/{made['id']}", wait_for) == 15
    assert worker.stop() == 0


@pytest.mark.skipif(find_spec("fastapi") is None, reason="fastapi is not installed")
def test_fastapi(place: Any, free_port: Callable[[], int], wait_for: Callable[..., Any]) -> None:
    port = free_port()
    worker = place([OPSQ, *line_of("fastapi_shop")], " ready.")
    place([sys.executable, "-m", "uvicorn", "fastapi_shop:app", "--port", str(port)], "running on")
    made = send_json(f"http://127.0.0.1:{port}/orders", {"item": "book", "count": 2})
    assert value_of(f"http://127.0.0.1:{port}/orders/{made['id']}", wait_for) == "2 of book"
    assert worker.stop() == 0


SEND = """
import sys
from old_shop import charge
ids = [charge.delay(f"o-{number}", number).id for number in range(int(sys.argv[1]))]
from celery.result import AsyncResult
print(sum(AsyncResult(id).get(timeout=30)["charged"] for id in ids))
"""


def test_a_mixed_fleet(place: Any, spawn: Spawner, tmp_path: Path, redis_url: str, celery_python: Path) -> None:
    """Celery's program sends; its worker and an opsq worker of the changed code run; then the opsq worker alone."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "old_shop.py").write_text(OLD)
    (old / "send.py").write_text(SEND)
    code, text = run(spawn, tmp_path, redis_url, "migrate-code", "new", "--write")
    assert code == 0, text
    environment = {"CELERY_BROKER_URL": redis_url, "CELERY_RESULT_BACKEND": redis_url}
    theirs = place(
        [celery_python, "-m", "celery", "--workdir", old, "-A", "old_shop", "worker", "-l", "info", "-P", "solo"],
        " ready.",
    )
    place([OPSQ, "--workdir", new, "-A", "old_shop", "worker", "-l", "info"], " ready.")

    def send(count: int) -> int:
        sent = spawn([celery_python, "send.py", str(count)], env=environment, cwd=old)
        assert sent.wait(60) == 0, sent.output()
        return int(sent.output().splitlines()[-1])

    assert send(50) == sum(range(50))
    theirs.stop()
    assert send(20) == sum(range(20))


@pytest.fixture
def foreign_keys() -> tuple[str, ...]:
    """What Celery's worker leaves."""
    return (r"_kombu\.binding.*", r"unacked.*", r".*\.reply\.celery\.pidbox", r"celery.*\.celery\.pidbox")
