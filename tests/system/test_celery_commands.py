"""A file of programs with Celery's commands: opsq runs those whose app is its own, and leaves the others to Celery."""

from __future__ import annotations

import base64
import json
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support.supervised import Supervised

from opsq.supervisor import celery_commands
from opsq.supervisor.orders import environment
from opsq.supervisor.plan import Program

APP = """
import os

{imports}

open("imported", "a").write(f"{{os.getpid()}}\\n")
app = Celery("proj")


@app.task
def double(number):
    return 2 * number
"""
#: What a program called celery does that is not opsq's to run.
SCRIPT = """#!{python}
import sys, time
print("Celery's own", *sys.argv[1:], flush=True)
time.sleep(1000)
"""


@pytest.fixture
def shop(shop: Supervised) -> Supervised:
    shop.environment = {"OPSQ_STATE_DIR": str(shop.state.root), "PATH": f"{shop.folder}/bin:/usr/bin:/bin"}
    write(shop, "proj", "from opsq import Celery")
    return shop


def write(shop: Supervised, name: str, imports: str) -> None:
    (shop.folder / f"{name}.py").write_text(APP.format(imports=imports))


def celery(shop: Supervised) -> None:
    """A program called celery in the environment of this interpreter."""
    path = shop.folder / "bin" / "celery"
    path.parent.mkdir()
    path.write_text(SCRIPT.format(python=sys.executable))
    path.chmod(0o755)


def up(shop: Supervised, programs: dict[str, str], *words: str) -> str:
    tables = (f"[program:{name}]\ncommand={command}\n" for name, command in programs.items())
    (shop.folder / "supervisord.conf").write_text("\n".join(tables))
    return shop.opsq(*words, "up", "-c", "supervisord.conf").stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str, account: str = "") -> int:
    headers = {"Authorization": f"Basic {base64.b64encode(account.encode()).decode()}"} if account else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return int(error.code)
    except urllib.error.URLError:  # nobody listens yet
        return 0


def test_worker_beat_and_flower_of_a_supervisord_file_are_opsqs(shop: Supervised) -> None:
    port = free_port()
    said = up(
        shop,
        {
            "mail-worker": "/no/venv/bin/celery worker -A proj --loglevel=INFO -c 1",
            "mail-beat": f"{shop.folder}/bin/celery -A proj.app beat -l info --schedule=x --pidfile=",
            "flower": f"{sys.executable} -m celery -A proj flower --port={port} --basic_auth=anna:secret --persistent",
        },
        *("-A", "proj"),
    )
    assert "running: redis, agent, mail-worker, mail-beat, flower" in said
    page = f"http://127.0.0.1:{port}/"
    shop.wait_for(lambda: answers(page), 20, "the monitor answers")
    assert json.loads(shop.opsq("run", "task", "proj.double", "[4]", "--wait").stdout) == 8
    assert "proj.double" in shop.opsq("logs", "mail-worker").stdout
    assert "ticking" in shop.opsq("logs", "mail-beat").stdout
    assert f"page: http://0.0.0.0:{port}/" in shop.opsq("-A", "proj", "up", "-c", "supervisord.conf").stderr
    assert shop.opsq("up").stderr.startswith("already up\nrunning: redis, agent, mail-worker"), "the file is what runs"
    assert (answers(page), answers(page, "anna:secret")) == (401, 200)
    assert "--persistent has no effect" in shop.opsq("logs", "flower").stdout
    told = {row["name"]: row for row in json.loads(shop.opsq("status", "--json").stdout)["programs"]}
    assert told["mail-worker"]["written"] == "/no/venv/bin/celery worker -A proj --loglevel=INFO -c 1"
    assert told["mail-worker"]["runs"] == "opsq worker -A proj --loglevel=INFO -c 1"
    table = shop.opsq("status").stdout
    assert "opsq for: /no/venv/bin/celery worker" in table
    assert "secret" not in table + json.dumps(told)
    shop.opsq("down")
    assert not shop.leftovers()


def test_programs_of_an_opsq_toml_are_treated_so_too(shop: Supervised, redis_url: str) -> None:
    shop.environment["OPSQ_BROKER_URL"] = redis_url
    shop.toml("app = 'proj'\n[programs.mail]\ncommand = ['celery', '-A', 'proj', 'worker', '-B', '-P', 'solo']\n")
    assert "running: monitor, agent, mail\n" in shop.opsq("up").stderr
    assert shop.program("mail")["runs"] == "opsq -A proj worker -B -P solo"
    shop.opsq("down")


def test_an_interpreter_that_has_neither_is_not_asked(shop: Supervised, redis_url: str) -> None:
    """`python` of the system is found where that of the project's environment is not on the PATH."""
    shop.environment["OPSQ_BROKER_URL"] = redis_url
    bare = shop.folder / "bin" / "python"
    bare.parent.mkdir()
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    up(shop, {"one": "python -m celery -A proj beat"})
    shop.until("one", runs="opsq -A proj beat")
    assert shop.opsq("up").stderr.startswith("already up\nrunning: one\n"), "nothing of ours is started beside it"
    (shop.folder / "supervisord.conf").unlink()
    assert "hint: it describes what runs here" in shop.opsq("up", code=2).stderr
    shop.opsq("down")


def test_a_daemon_that_is_replaced_knows_what_runs(shop: Supervised, redis_url: str) -> None:
    shop.environment["OPSQ_BROKER_URL"] = redis_url
    up(shop, {"one": "celery -A proj beat"})
    before = shop.until("one", runs="opsq -A proj beat")
    daemon = shop.kill("daemon")
    shop.replaced("daemon", daemon)
    shop.until("one", runs="opsq -A proj beat", pid=before["pid"])
    shop.opsq("down")


def test_an_app_is_imported_once_by_its_program(shop: Supervised, redis_url: str) -> None:
    shop.environment["OPSQ_BROKER_URL"] = redis_url
    celery(shop)
    up(shop, {"one": "celery -A proj beat -l info"})
    shop.until("one", runs="opsq -A proj beat -l info")
    shop.wait_for(lambda: b"ticking" in shop.log("one"), 20, "it ticks")
    assert (shop.folder / "imported").read_text().split() == [str(shop.program("one")["pid"])]
    shop.opsq("down")


@pytest.mark.parametrize(
    "imports", ["from celery import Celery", "from opsq import Celery\nimport celery", "from made import Celery"]
)
def test_the_app_decides_who_runs_it(shop: Supervised, redis_url: str, imports: str) -> None:
    """Celery's by its imports; opsq's though it imports both; by what it is where it imports neither."""
    shop.environment |= {"OPSQ_BROKER_URL": redis_url, "PYTHONPATH": str(shop.folder / "site")}
    package = shop.folder / "site" / "celery" / "app"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("from celery.app.base import Celery\n")
    (package / "__init__.py").touch()
    (package / "base.py").write_text("class Celery:\n    def __init__(self, name): pass\n    task = staticmethod(id)\n")
    (shop.folder / "made.py").write_text("from celery import Celery\n")
    celery(shop)
    write(shop, "proj", imports)
    up(shop, {"one": "celery -A proj beat"})
    runs = "opsq -A proj beat" if "opsq" in imports else "celery -A proj beat"
    assert shop.until("one", runs=runs)["reason"] == (
        "opsq for: celery -A proj beat" if "opsq" in imports else "Celery's own: celery -A proj beat"
    )
    if "opsq" not in imports:
        shop.wait_for(lambda: b"Celery's own -A proj beat" in shop.log("one"), 20, "it runs what was written")
    shop.opsq("down")


def test_a_command_without_an_app_is_celerys_where_there_is_one(shop: Supervised, redis_url: str) -> None:
    shop.environment["OPSQ_BROKER_URL"] = redis_url
    (shop.folder / "sub").mkdir()
    up(shop, {"one": f"celery -b {redis_url} beat"})
    shop.until("one", runs=f"opsq -b {redis_url} beat")
    shop.opsq("down")
    celery(shop)
    up(shop, {"one": f"celery -b {redis_url} beat"})
    shop.until("one", runs=f"celery -b {redis_url} beat")
    shop.opsq("down")


def test_what_flower_says_elsewhere_is_carried_over(shop: Supervised, redis_url: str) -> None:
    """Its file and its variables; without a password it listens on this machine alone, and says so."""
    port, other = free_port(), free_port()
    shop.environment["OPSQ_BROKER_URL"] = redis_url
    (shop.folder / "flowerconfig.py").write_text(f"port = {port}\nurl_prefix = 'flower'\naddress = '0.0.0.0'\n")
    (shop.folder / "other.py").write_text("basic_auth = ['anna:secret']\nport = 1\naddress = '127.0.0.1'\n")
    tables = (
        "[program:open]\ncommand=celery -A proj flower\n"
        "[program:closed]\ncommand=celery -A proj flower --conf=other.py\n"
        "environment=FLOWER_PORT=2,FLOWER_MAX_TASKS=500\n"
        "[program:guarded]\ncommand=celery -A proj flower --auth=.*@example.org\nstartretries=0\n"
    ).replace("--conf=other.py", f"--conf=other.py --port={other}")
    (shop.folder / "supervisord.conf").write_text(tables)
    shop.opsq("up", "-c", "supervisord.conf", "open", "closed")
    shop.wait_for(lambda: answers(f"http://127.0.0.1:{port}/flower/") == 200, 20, "it is shown to this machine")
    closed = f"http://127.0.0.1:{other}/"
    shop.wait_for(lambda: answers(closed) == 401, 20, "a password is asked for")
    assert answers(closed, "anna:secret") == 200
    note = "it listens on 127.0.0.1, not on 0.0.0.0: that needs a password (basic_auth)"
    assert note in shop.program("open")["reason"]
    assert f"opsq: {note}" in shop.opsq("logs", "open").stdout
    assert "500 tasks" in shop.opsq("logs", "closed").stdout
    shop.opsq("start", "guarded", code=1)
    assert "no such option: --auth" in shop.opsq("logs", "guarded").stdout
    shop.opsq("down")


def test_programs_of_another_user_have_a_state_directory_of_their_own(
    shop: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    mine = environment(shop.state, Program("one", ("x",), "/"))["OPSQ_STATE_DIR"]
    others = environment(shop.state, Program("one", ("x",), "/", user="nobody"))["OPSQ_STATE_DIR"]
    assert mine == str(shop.state.root)
    assert others is not None
    assert others != mine
    assert Path(others).parent == Path("/tmp")
    command = ("celery", "-A", "proj", "worker")
    theirs = celery_commands.as_ours(Program("one", command, "/", user="nobody"), {})
    assert celery_commands.told(theirs, None, "")["reason"] == "as nobody: celery -A proj worker"
