"""`-A` finds what Celery finds, and every mistake is one clear sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from opsq import _state
from opsq.app.discovery import find_app, named_app
from opsq.exceptions import UsageError

APP = "from opsq import Celery\n"
Write = Callable[[Mapping[str, str]], Path]


@pytest.fixture(autouse=True)
def _clean_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_state, "_default_app", None)
    before = set(sys.modules)
    yield
    vars(_state._thread).clear()
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def files(content: Mapping[str, str]) -> Path:
        for name, text in content.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return files


@pytest.mark.parametrize(
    ("files", "spec"),
    [
        ({"d_tasks.py": APP + "app = Celery('found')"}, "d_tasks"),
        ({"d_tasks.py": APP + "app = Celery('found')"}, "d_tasks:app"),
        ({"d_tasks.py": APP + "app = Celery('found')"}, "d_tasks.app"),
        ({"d_tasks.py": APP + "celery = Celery('found')"}, "d_tasks"),
        ({"d_tasks.py": APP + "whatever = Celery('found')"}, "d_tasks"),
        ({"d_tasks.py": APP + "class Holder: inner = Celery('found')"}, "d_tasks:Holder.inner"),
        ({"d_tasks.py": APP + "app = object()\ncelery = Celery('found')"}, "d_tasks"),
        ({"d_pkg/__init__.py": "", "d_pkg/celery.py": APP + "app = Celery('found')"}, "d_pkg"),
        ({"d_pkg/__init__.py": "", "d_pkg/celery.py": APP + "celery = Celery('found')"}, "d_pkg"),
        ({"d_pkg/__init__.py": "", "d_pkg/celery.py": APP + "other = Celery('found')"}, "d_pkg"),
        ({"d_pkg/__init__.py": "from .celery import app", "d_pkg/celery.py": APP + "app = Celery('found')"}, "d_pkg"),
        ({"d_pkg/__init__.py": "", "d_pkg/celery.py": APP + "app = Celery('found')"}, "d_pkg.celery"),
        ({"d_pkg/__init__.py": "", "d_pkg/celery.py": APP + "app = Celery('found')"}, "d_pkg.celery.app"),
        ({"d_pkg/__init__.py": "", "d_pkg/celery.py": APP + "app = Celery('found')"}, "d_pkg.celery:app"),
        ({"d_pkg/__init__.py": APP + "mine = Celery('found')"}, "d_pkg"),
        (
            {"d_pkg/__init__.py": "", "d_pkg/sub/__init__.py": "", "d_pkg/sub/app.py": APP + "q = Celery('found')"},
            "d_pkg.sub.app",
        ),
    ],
)
def test_finds_what_celery_finds(write: Write, files: Mapping[str, str], spec: str) -> None:
    write(files)
    assert find_app(spec).main == "found"


def test_the_app_that_was_found_is_the_current_one(write: Write) -> None:
    write({"d_tasks.py": APP + "other = Celery('other')\napp = Celery('found', set_as_current=False)"})
    app = find_app("d_tasks")
    assert _state.get_current_app() is app
    vars(_state._thread).clear()
    assert _state.get_current_app() is app


def test_looks_in_the_working_directory_that_is_named(write: Write) -> None:
    folder = write({"elsewhere/d_tasks.py": APP + "app = Celery('found')"})
    assert find_app("d_tasks", folder / "elsewhere").main == "found"
    with pytest.raises(UsageError, match=r"cannot work in .*nowhere: no such file or directory"):
        find_app("d_tasks", folder / "nowhere")


def test_without_a_name_opsqs_own_app_is_used() -> None:
    app = find_app(None)
    assert app.main == "opsq"
    assert {"opsq.ping", "opsq.sleep"} <= set(app.tasks)
    assert app.tasks["opsq.ping"]() == "pong"


def test_the_app_may_be_named_by_the_environment_or_opsq_toml(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write({"opsq.toml": "app = 'd_tasks'", "d_tasks.py": APP + "app = Celery('found')", "sub/x.txt": ""})
    monkeypatch.chdir(folder / "sub")
    assert named_app() == ("d_tasks", str(folder / "opsq.toml"))
    assert find_app(None).main == "found"
    monkeypatch.setenv("OPSQ_APP", "other")
    assert named_app() == ("other", "OPSQ_APP")
    assert named_app("flag") == ("flag", "-A")


MANAGE = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'd_site.settings')\n"


def test_a_django_project_names_its_app_by_manage_py(write: Write) -> None:
    folder = write({"manage.py": MANAGE, "d_site/__init__.py": "", "d_site/celery.py": APP + "app = Celery('found')"})
    assert named_app() == ("d_site", str(folder / "manage.py"))
    assert find_app(None).main == "found"


def test_a_django_project_without_celery_py_has_an_app_of_its_settings(write: Write) -> None:
    folder = write({"manage.py": MANAGE, "d_site/__init__.py": ""})
    assert named_app() == ("opsq.contrib.django", str(folder / "manage.py"))


@pytest.mark.parametrize(
    ("files", "spec", "why", "hint"),
    [
        ({"d_tasks.py": ""}, "d_taks", "there is no module 'd_taks'", "did you mean d_tasks?"),
        ({"d_tasks.py": ""}, "d_tasks.py", "there is no module", "write 'd_tasks', without .py"),
        ({"d_tasks.py": ""}, "d_tasks", "neither 'app' nor 'celery'", "App('d_tasks')"),
        (
            {"d_tasks.py": APP + "mine = Celery('x')"},
            "d_tasks:mien",
            "no 'mien' in the module 'd_tasks'",
            "did you mean mine?",
        ),
        ({"d_tasks.py": APP + "mine = Celery('x')"}, "d_tasks:app", "no 'app' in the module", "its apps are: mine"),
        ({"d_tasks.py": "x = 3"}, "d_tasks:x", "it is a int", ""),
        ({"d_tasks.py": "x = 3"}, "d_tasks.y", "neither a module 'd_tasks.y' nor 'y'", "makes no app"),
        ({"d_tasks.py": "def f(:\n"}, "d_tasks", "invalid syntax (d_tasks.py, line 1)", ""),
        (
            {"d_pkg/__init__.py": "", "d_pkg/celery.py": "x = 1\ny ="},
            "d_pkg",
            "invalid syntax (d_pkg/celery.py, line 2)",
            "",
        ),
        ({"d_tasks.py": "\nimport nosuchthing"}, "d_tasks", "No module named 'nosuchthing' (d_tasks.py, line 2)", ""),
        ({"d_tasks.py": "from os import nosuch"}, "d_tasks:app", "cannot import name 'nosuch' from 'os'", ""),
        (
            {"d_pkg/__init__.py": "import nosuchthing"},
            "d_pkg.x",
            "No module named 'nosuchthing' (d_pkg/__init__.py, line 1)",
            "",
        ),
        (
            {"d_pkg/__init__.py": "", "d_pkg/celery.py": "1 / 0"},
            "d_pkg",
            "ZeroDivisionError: division by zero (d_pkg/celery.py",
            "",
        ),
    ],
)
def test_a_mistake_is_one_clear_sentence(
    write: Write, files: Mapping[str, str], spec: str, why: str, hint: str
) -> None:
    write(files)
    with pytest.raises(UsageError) as caught:
        find_app(spec)
    assert why in str(caught.value)
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)


def test_an_app_of_celery_itself_says_which_line_to_change(write: Write) -> None:
    celery = "import sys, types\nm = types.ModuleType('celery.app.base')\n"
    write({"d_tasks.py": celery + "Celery = type('Celery', (), {'__module__': 'celery.app.base'})\napp = Celery()"})
    with pytest.raises(UsageError, match="made by Celery, not by opsq") as caught:
        find_app("d_tasks")
    assert "from opsq import Celery" in caught.value.hint


def test_the_home_of_an_app_is_the_folder_of_its_top_package(write: Write) -> None:
    folder = write(
        {"d_pkg/__init__.py": "", "d_pkg/sub/celery.py": APP + "app = Celery('x')", "d_pkg/sub/__init__.py": ""}
    )
    assert find_app("d_pkg.sub").home == folder


def probe(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "opsq.app.probe", *argv]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_probe_says_in_one_line_which_broker_the_app_names(write: Write) -> None:
    folder = write({"d_tasks.py": APP + "print('noise')\napp = Celery('found', broker='redis://h/1')"})
    done = probe(folder, "-A", "d_tasks")
    expected = {"app": "found", "spec": "d_tasks", "broker_url": "redis://h/1", "source": "App(...)", "key_prefix": ""}
    expected["priorities"] = {"priority_steps": [0, 3, 6, 9], "sep": "\x06\x16"}  # type: ignore[assignment]
    assert json.loads(done.stdout) == expected
    assert "noise" in done.stderr
    write({"d_tasks.py": APP + "app = Celery('found')"})
    assert json.loads(probe(folder, "-A", "d_tasks").stdout)["broker_url"] is None


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("def (", "cannot load the app 'd_tasks': invalid syntax (d_tasks.py, line 1)\n"),
        (APP + "app = Celery('x', broker='amqp://')", "cannot use 'amqp://' as broker: opsq's broker is Redis\nhint: "),
    ],
)
def test_the_probe_ends_with_2_and_a_sentence_on_a_mistake(write: Write, text: str, error: str) -> None:
    done = probe(write({"d_tasks.py": text}), "-A", "d_tasks")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(error)
