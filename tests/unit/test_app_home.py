"""What an app finds from where it lives, then from the current folder: the private Redis and `opsq.toml`."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsq import _state
from opsq.app.discovery import find_app
from opsq.app.home import home_of, private_redis
from opsq.config.broker import PRIVATE
from opsq.exceptions import BrokerError

APP = "from opsq import Celery\nany_name = Celery('home')\n"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two folders, short enough for sockets: `project` with an opsq.toml, and `elsewhere`."""
    path = Path(tempfile.mkdtemp(prefix="oq-"))
    for name in ("project", "elsewhere"):
        (path / name).mkdir()
    (path / "project" / "opsq.toml").write_text("task_acks_late = true\n")
    (path / "project" / "home_tasks.py").write_text(APP)
    (path / "elsewhere" / "opsq.toml").write_text("")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(path)
    monkeypatch.setattr(_state, "_default_app", None)
    yield path
    vars(_state._thread).clear()
    sys.modules.pop("home_tasks", None)
    shutil.rmtree(path)


@pytest.fixture
def listening() -> Iterator[object]:
    sockets = []

    def listen(project: Path) -> str:
        path = project / ".opsq" / "run" / "redis.sock"
        path.parent.mkdir(parents=True)
        sockets.append(socket.socket(socket.AF_UNIX))
        sockets[-1].bind(str(path))
        sockets[-1].listen()
        return f"redis+socket://{path}"

    yield listen
    for each in sockets:
        each.close()


def test_the_private_redis_is_found_from_the_apps_folder(
    folder: Path, listening: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = listening(folder / "project")  # type: ignore[operator]
    app = find_app("home_tasks", folder / "project")
    monkeypatch.chdir(folder / "elsewhere")
    assert (app.find_broker().url, app.find_broker().source) == (url, PRIVATE)
    assert app.find_results().url == url
    assert app.conf.task_acks_late is True
    assert app.conf.source_of("task_acks_late") == str(folder / "project" / "opsq.toml")


def test_else_it_is_found_from_the_current_folder(
    folder: Path, listening: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = listening(folder / "elsewhere")  # type: ignore[operator]
    app = find_app("home_tasks", folder / "project")
    with pytest.raises(BrokerError):
        app.find_broker()
    monkeypatch.chdir(folder / "elsewhere")
    assert app.find_broker().url == url


def test_a_socket_that_nobody_answers_is_no_broker(folder: Path, listening: object) -> None:
    listening(folder / "project")  # type: ignore[operator]
    (folder / "project" / ".opsq" / "run" / "redis.sock").unlink()
    (folder / "project" / ".opsq" / "run" / "redis.sock").touch()
    assert private_redis(folder / "project") is None


@pytest.mark.parametrize(
    ("module", "home"),
    [
        ({"__name__": "tasks", "__file__": "/x/tasks.py"}, "/x"),
        ({"__name__": "a.b.tasks", "__file__": "/x/a/b/tasks.py"}, "/x"),
        ({"__name__": "a", "__file__": "/x/a/__init__.py"}, "/x"),
        ({"__name__": "a.b", "__file__": "/x/a/b/__init__.py"}, "/x"),
        ({"__name__": "__main__", "__file__": "/x/tasks.py"}, "/x"),
        ({"__name__": "__main__"}, None),
    ],
)
def test_the_home_of_a_module(module: dict[str, str], home: str | None) -> None:
    assert home_of(module) == (Path(home) if home else None)
