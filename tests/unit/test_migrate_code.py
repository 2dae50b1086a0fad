"""`opsq migrate-code`: imports change, nothing else does; what stays is named; files keep what they are."""

from __future__ import annotations

import ast
import importlib
import io
import json
import os
import re
import subprocess
import sys
import tokenize
from pathlib import Path, PurePath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsq.cli.codemod import names
from opsq.cli.codemod.elsewhere import lines_of
from opsq.cli.codemod.rewrite import rewrite


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from celery import Celery, shared_task  # hi\n", "from opsq import Celery, shared_task  # hi\n"),
        ("from celery.schedules import crontab as c\r\n", "from opsq.schedules import crontab as c\r\n"),
        ("from celery import (\n  chain,  # one\n  group)\n", "from opsq import (\n  chain,  # one\n  group)\n"),
        ("from celery import \\\n   chain\n", "from opsq import \\\n   chain\n"),
        ("from celery import signals, states\n", "from opsq import signals, states\n"),
        ("from celery import *\n", "from opsq import *\n"),
        ("from celery.app import shared_task\n", "from opsq import shared_task\n"),
        ("if 1: from celery import chain; x = 1\n", "if 1: from opsq import chain; x = 1\n"),
        ("import celery\n@celery.shared_task\ndef f(): ...\n", "import opsq\n@opsq.shared_task\ndef f(): ...\n"),
        ("from celery.contrib.django.task import DjangoTask\n", "from opsq.contrib.django.task import DjangoTask\n"),
        ("import celery.result as r, os\n", "import opsq.result as r, os\n"),
        ("import os, celery.signals\ncelery.signals.x\n", "import os, opsq.signals\nopsq.signals.x\n"),
        ("import celery\ncelery = celery.Celery()\n", "import opsq as celery\ncelery = celery.Celery()\n"),
        ("import celery.result\ndef f(celery): ...\n", "import opsq.result, opsq as celery\ndef f(celery): ...\n"),
        ("from kombu.utils.uuid import uuid\n", "from opsq import uuid\n"),
        ("import kombu\nkombu.uuid()\n", "import opsq\nopsq.uuid()\n"),
        ("from kombu.exceptions import OperationalError, HttpError\n",
         "from opsq.exceptions import OperationalError\nfrom kombu.exceptions import HttpError\n"),
        ("from celery.task import task, Task\n", "from opsq import shared_task as task, Task\n"),
        ("def f():\n    from celery import chain, bootsteps, group  # why\n",
         "def f():\n    from opsq import chain, group\n    from celery import bootsteps  # why\n"),
        ("from celery import (\n    chain,  # one\n    bootsteps,  # two\n)\n",
         "from celery import bootsteps\nfrom opsq import (\n    chain,  # one\n    # two\n)\n"),
    ],
)  # fmt: skip
def test_an_import_changes_and_nothing_around_it(before: str, after: str) -> None:
    assert rewrite(before).text == after
    assert rewrite(after).text == after


@pytest.mark.parametrize(
    "source",
    [
        "from .celery import app\n",
        "from proj.celery import app\n",
        "import mycelery, celery_app\n",
        "celery = 1\n'''from celery import x'''  # import celery\n",
        "from celery import app_of_mine\n",
        "import logging\nlogging.getLogger('celery.app.trace')\n",
        "from kombu import Connection\n",
    ],
)
def test_what_is_not_celerys_or_has_no_place_stays(source: str) -> None:
    assert rewrite(source).text == source


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("from celery import bootsteps\n", "the worker is not made of steps"),
        ("from kombu.transport import virtual\n", "opsq's broker is Redis"),
        ("import kombu.pools\n", "opsq has no kombu"),
        ("import celery.bin.worker\n", "use the command `opsq`"),
        ("import celery\ncelery.bootsteps.StartStopStep\n", "the worker is not made of steps"),
        ("from celery.task.control import revoke\n", "app.control has it"),
        ("from celery.task import periodic_task\n", "beat_schedule names the task"),
        (
            "from billiard.exceptions import SoftTimeLimitExceeded as S\n",
            "opsq.exceptions import SoftTimeLimitExceeded as S",
        ),
        ("from billiard import current_process\n", "Python's multiprocessing has it"),
        ("import billiard\n", "Python's multiprocessing has it"),
        ("mock.patch('celery.app.task.Task.apply_async')\n", "write 'opsq.app.task.Task.apply_async'"),
        ("mock.patch('celery.bootsteps.Step.start')\n", "the worker is not made of steps"),
    ],
)
def test_what_cannot_be_moved_is_named_with_its_reason(source: str, why: str) -> None:
    (left,) = rewrite(source).left
    assert why in left.why
    assert left.text == source.splitlines()[left.line - 1]


# -- any source -----------------------------------------------------------------------------------------------------

_NAMES = ["Celery", "chain", "group", "bootsteps", "signals", "shared_task"]
_words = st.sampled_from(["x", "celery", "opsq", "value", "kombu"])
_comments = st.sampled_from(["", "  # celery stays", "  # ünïcödé", " # noqa"])


@st.composite
def _imports(draw: Any) -> str:
    module = draw(st.sampled_from(["celery", "celery", "celery.utils", "kombu", "os", "proj.celery", ".celery"]))
    wanted = draw(st.lists(st.sampled_from(_NAMES), min_size=1, max_size=4, unique=True))
    wanted = [name + draw(st.sampled_from(["", "", " as other"])) for name in wanted]
    form = draw(st.sampled_from(["flat", "block", "tight", "import", "as"]))
    if form == "import":
        return "import " + draw(st.sampled_from(["celery", "celery.result", "os, celery", "kombu, celery.states"]))
    if form == "as":
        return f"import celery.{draw(st.sampled_from(['result', 'bin', 'signals']))} as {draw(_words)}"
    if form == "flat":
        return f"from {module} import {', '.join(wanted)}"
    if form == "tight":
        return f"from {module} import ({','.join(wanted)})"
    lines = [f"    {name},{draw(_comments)}" for name in wanted]
    return "\n".join([f"from {module} import ({draw(_comments)}", *lines, ")"])


_others = st.sampled_from(
    [
        "x = celery.result",
        "celery = 1",
        'y = "é" + celery.current_app.main',
        'print(f"{celery.__name__} ö")',
        "def f(celery=None): return celery",
        "class opsq: pass",
        "'celery.beat.Scheduler'",
        "\x0c",
        "z = [celery, (kombu)]",
    ]
)


@st.composite
def _sources(draw: Any) -> str:
    parts = draw(st.lists(st.one_of(_imports(), _others), max_size=8))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    text = "".join(part + draw(_comments) + "\n" for part in parts)
    return text.replace("\n", end)


def _comments_of(source: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(source.replace("\r\n", "\n").replace("\r", "\n")).readline)
    return sorted(token.string for token in tokens if token.type == tokenize.COMMENT)


def _others_of(source: str, opsq_is_celery: bool) -> list[str]:
    """All statements that are no imports, as trees."""
    found = [node for node in ast.parse(source).body if not isinstance(node, ast.Import | ast.ImportFrom)]
    text = [ast.dump(node) for node in found]
    return [each.replace("'opsq'", "'celery'") for each in text] if opsq_is_celery else text


def _bound(source: str) -> set[str]:
    """The names that imports give a meaning; a package and opsq in its place count as the same."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return {"celery" if name in ("opsq", "kombu") else name for name in found}


@given(_sources())
def test_only_imports_and_the_name_of_the_package_change(source: str) -> None:
    found = rewrite(source)
    assert _comments_of(found.text) == _comments_of(source)
    assert _others_of(found.text, True) == _others_of(source, True)
    assert _bound(found.text) == _bound(source)
    assert rewrite(found.text).text == found.text
    ends = {end for end in ("\r\n", "\n") if end in source}
    assert {end for end in ("\r\n", "\n") if end in found.text} == ends


@given(_sources())
def test_every_import_of_opsq_that_it_writes_works(source: str) -> None:
    for node in ast.walk(ast.parse(rewrite(source).text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("opsq") and not node.level:
            module = importlib.import_module(node.module or "")
            assert all(hasattr(module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("opsq"):
                    importlib.import_module(alias.name)


def test_a_place_that_is_named_exists() -> None:
    for module, name in [("celery", "Celery"), ("celery.utils.log", "get_task_logger"), ("kombu", "uuid")]:
        home = names.home_of(module, name)
        assert home is not None
        assert hasattr(importlib.import_module(home.module), home.name)


# -- other files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "line", "instead"),
    [
        ("requirements.txt", "celery[redis,librabbitmq]==5.3.1  # queue", "opsq[redis]  # queue"),
        ("requirements/base.txt", "celery>=5; python_version>'3'", "opsq; python_version>'3'"),
        ("pyproject.toml", '  "celery[redis]>=5.2",', '"opsq[redis]",'),
        ("pyproject.toml", 'dependencies = ["celery>=5", "kombu"]', 'dependencies = ["opsq", "kombu"]'),
        ("pyproject.toml", 'a = ["x", "celery[redis,sqs]~=5.4; c"]', 'a = ["x", "opsq[redis]; c"]'),
        ("setup.py", "    install_requires=['celery', 'flask'],", "install_requires=['opsq', 'flask'],"),
        ("setup.py", 'extras_require={"jobs": ["celery"]}', 'extras_require={"jobs": ["opsq"]}'),
        ("pyproject.toml", 'celery = {version="^5", extras=["redis"]}', 'opsq = "*"'),
        (
            "celery.service",
            "ExecStart=/srv/bin/celery -A p worker -l INFO",
            "ExecStart=/srv/bin/opsq -A p worker -l INFO",
        ),
        ("supervisord.conf", "command=celery --app=p beat", "command=opsq --app=p beat"),
        ("Procfile", "worker: python -m celery -A p worker", "worker: python -m opsq -A p worker"),
        ("Dockerfile", 'CMD ["celery", "-A", "p", "worker"]', 'CMD ["opsq", "-A", "p", "worker"]'),
        ("Dockerfile", "RUN pip install 'celery[redis]==5' flask", "RUN pip install 'opsq[redis]' flask"),
        ("docker-compose.yml", "    command: celery -A p worker", "command: opsq -A p worker"),
        (
            "Dockerfile",
            "HEALTHCHECK CMD celery --app=p status -d w@$H",
            "HEALTHCHECK CMD opsq --app=p inspect ping -d w@$H",
        ),
        ("Dockerfile", 'CMD ["celery", "-A", "p", "status"]', 'CMD ["opsq", "-A", "p", "inspect", "ping"]'),
        ("Procfile", "w: celery -A p worker -n status", "w: opsq -A p worker -n status"),
        ("crontab", "0 3 * * * /venv/bin/celery -A p purge -f", "0 3 * * * /venv/bin/opsq -A p purge -f"),
    ],
)
def test_a_line_elsewhere_is_told_with_the_line_to_write(path: str, line: str, instead: str) -> None:
    (found,) = lines_of(PurePath(path), f"first\n{line}\n")
    assert (found.number, found.text, found.instead) == (2, line.strip(), instead)


@pytest.mark.parametrize(
    ("path", "line", "why"),
    [
        ("requirements.txt", "kombu==5.3", "not needed"),
        ("requirements.txt", "django-celery-beat", "INSTALLED_APPS"),
        ("pyproject.toml", 'dependencies = ["flask", "kombu>=5"]', "not needed"),
        ("run.sh", "celery multi start w1 -A p", "up` starts workers"),
        ("w.service", "ExecStart=/srv/bin/celery -A p multi start w1 --pidfile=x", "up` starts workers"),
        ("Dockerfile", 'CMD ["celery", "-A", "p", "multi", "start", "w1"]', "up` starts workers"),
    ],
)
def test_a_line_without_a_place_is_told_why(path: str, line: str, why: str) -> None:
    (found,) = lines_of(PurePath(path), line)
    assert found.instead is None
    assert why in found.why


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("docker-compose.yml", "  celery:"),
        ("supervisord.conf", "[program:celery]"),
        ("supervisord.conf", "stdout_logfile=/var/log/celery/worker.log"),
        ("run.sh", "pytest -m celery"),
        ("requirements.txt", "# celery==4"),
        ("requirements.txt", "celery-batches"),
        ("pyproject.toml", 'keywords = ["celery", "queue"]'),
        ("notes.md", "celery -A p worker"),
    ],
)
def test_names_of_the_projects_own_are_left_alone(path: str, line: str) -> None:
    assert not list(lines_of(PurePath(path), line))


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (
            "from django_celery_beat.models import PeriodicTask, IntervalSchedule as Every",
            "write: from opsq.contrib.django.models import PeriodicTask, IntervalSchedule as Every",
        ),
        ("from django_celery_results.models import TaskResult", "import TaskResult"),
        ("import django_celery_beat.models as m", "write: import opsq.contrib.django.models as m"),
        ("from django_celery_beat import models", "write: from opsq.contrib.django import models"),
        (
            "from django_celery_beat.admin import PeriodicTaskAdmin",
            "opsq.contrib.django.admin import PeriodicTaskAdmin",
        ),
        ("from django_celery_beat.schedulers import DatabaseScheduler", "-S django, selects opsq's"),
        ("from django_celery_beat.validators import minute_validator", "minute_validator: opsq.contrib.django has no"),
        ("INSTALLED_APPS = ['django_celery_results']", "in INSTALLED_APPS write 'opsq.contrib.django'"),
        ("dependencies = [('django_celery_beat', '0018_x')]", "('opsq', '0001_schedules') among the dependencies"),
        ("entry = ForeignKey('django_celery_beat.periodictask')", "write: 'opsq.periodictask'"),
    ],
)
def test_what_a_django_project_says_of_tables_is_told_with_what_to_write(source: str, why: str) -> None:
    done = rewrite(f"{source}\n")
    (left,) = done.left
    assert (done.text, left.line, left.text) == (f"{source}\n", 1, source)
    assert why in left.why


@pytest.mark.parametrize(
    "source",
    [
        "logging.getLogger('celery.app.trace')\n",
        "LOGGING = {'loggers': {'celery.worker.consumer.gossip': {'level': 'ERROR'}}}\n",
    ],
)
def test_names_of_loggers_stay_and_are_not_told(source: str) -> None:
    assert not rewrite(source).left


def test_the_setting_that_selects_the_scheduler_is_left_as_it_is() -> None:
    assert not rewrite("CELERY_BEAT_SCHEDULER = 'django_celery_beat.schedulers:DatabaseScheduler'\n").left


# -- the command ----------------------------------------------------------------------------------------------------


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-m", "opsq", "migrate-code", *words]
    return subprocess.run(argv, cwd=folder, capture_output=True, stdin=subprocess.DEVNULL)


LATIN = b"# coding: latin-1\r\nfrom %s import chain  # \xe9\r\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Files of every kind: an encoding, ends of lines, modes, a link, what is no Python."""
    (tmp_path / "pkg" / ".venv").mkdir(parents=True)
    (tmp_path / "pkg" / "latin.py").write_bytes(
        "# coding: latin-1\r\nfrom celery import chain  # é\r\n".encode("latin-1")
    )
    (tmp_path / "pkg" / "bom.py").write_bytes(b"\xef\xbb\xbfimport celery\nprint(celery.__name__)")
    (tmp_path / "pkg" / "script.py").write_text("#!/usr/bin/env python\nfrom celery import bootsteps, Celery\n")
    (tmp_path / "pkg" / "script.py").chmod(0o754)
    (tmp_path / "pkg" / "old.py").write_text("from celery import x\nprint 'two'\n")
    (tmp_path / "pkg" / ".venv" / "theirs.py").write_text("import celery\n")
    (tmp_path / "link.py").symlink_to("pkg/latin.py")
    (tmp_path / "requirements.txt").write_text("celery==5\n")
    return tmp_path


def test_without_write_nothing_changes_and_the_diff_can_be_applied(project: Path) -> None:
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    shown = _run(project, "pkg")
    assert shown.returncode == 0
    assert {path: path.read_bytes() for path in before} == before
    subprocess.run(["patch", "-p1", "--binary", "-s"], cwd=project, input=shown.stdout, check=True)
    assert (project / "pkg/latin.py").read_bytes() == "# coding: latin-1\r\nfrom opsq import chain  # é\r\n".encode(
        "latin-1"
    )
    assert (project / "pkg/bom.py").read_bytes() == b"\xef\xbb\xbfimport opsq\nprint(opsq.__name__)"
    told = shown.stderr.decode()
    assert "bootsteps: the worker is not made of steps" in told
    assert re.search(r"old\.py: not read: Python 3\.\d+, which runs this, cannot read it: line 2", told)
    assert "3 imports in 3 files would change: --write does it" in told


def test_write_keeps_modes_encodings_and_links(project: Path) -> None:
    done = _run(project, ".", "--write")
    assert (done.returncode, done.stdout) == (0, b"")
    assert "requirements.txt:1: celery==5\n    write: opsq" in done.stderr.decode()
    assert (project / "link.py").is_symlink()
    assert (project / "pkg/latin.py").read_bytes() == LATIN % b"opsq"
    assert os.stat(project / "pkg/script.py").st_mode & 0o777 == 0o754
    assert (project / "pkg/script.py").read_text().splitlines()[1:] == [
        "from celery import bootsteps",
        "from opsq import Celery",
    ]
    assert (project / "pkg/.venv/theirs.py").read_text() == "import celery\n"
    assert (project / "requirements.txt").read_text() == "celery==5\n"
    assert not list(project.rglob(".*.py*"))
    assert b"no import of celery" in _run(project, ".", "--write").stderr


def test_scripts_get_all_of_it_as_json(project: Path) -> None:
    data = json.loads(_run(project, "pkg", "--json").stdout)
    by_name = {Path(each["path"]).name: each for each in data["files"]}
    assert data["written"] is False
    assert by_name["latin.py"]["imports"] == 1
    assert by_name["script.py"]["left"][0]["line"] == 2
    assert by_name["old.py"]["diff"] is None
    assert by_name["old.py"]["trouble"]


def test_a_path_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    done = _run(tmp_path, "nowhere")
    assert done.returncode == 2
    assert done.stderr.decode().startswith("opsq: cannot migrate nowhere: there is no such file or folder")
    assert _run(tmp_path).returncode == 2
