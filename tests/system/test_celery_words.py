"""Celery's words on the command line: call, purge, list, report, shell, graph; a worker that runs as root says so."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from support import lab as labs
from support.lab import Lab

TASKS = """
app.conf.redis_password = "hunter2"


@app.task(name="a.name.of.its.own")
def named():
    return "named"
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        yield lab


@pytest.fixture(autouse=True)
def _clean(lab: Lab) -> Iterator[None]:
    yield
    lab.end_workers()
    lab.redis.flushall()


def opsq(lab: Lab, *words: str, code: int = 0, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*labs.OPSQ, *words],
        cwd=lab.folder,
        env={**lab.spawn.environment(lab.environment), **environment},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    return done


def waiting(lab: Lab, queue: str = "celery") -> dict[str, Any]:
    """The only message of a queue."""
    raw: Any = lab.redis.lindex(queue, 0)
    assert lab.redis.llen(queue) == 1
    found: dict[str, Any] = json.loads(raw)
    return found


# -- call ------------------------------------------------------------------------------------------------------------


def test_a_call_is_sent_and_its_id_printed(lab: Lab) -> None:
    done = opsq(lab, "-A", "proj", "call", "proj.add", "-a", "[2, 3]")
    assert waiting(lab)["headers"]["id"] == done.stdout.strip()
    lab.worker("-c", "1")
    assert lab.value(done.stdout.strip()) == 5


def test_a_call_takes_all_of_celerys_options(lab: Lab) -> None:
    words = 'call any.name.at.all --args [1] --kwargs {"b":2} --expires 60 --serializer yaml --queue mail -A proj'
    opsq(lab, *words.split())
    message = waiting(lab, "mail")
    assert message["headers"]["task"] == "any.name.at.all"
    assert message["content-type"] == "application/x-yaml"
    assert message["headers"]["kwargsrepr"] == "{'b': 2}"
    assert message["headers"]["expires"] is not None


@pytest.mark.parametrize("when", [["--countdown", "3600"], ["--eta", "2100-01-01T00:00:00+00:00"]])
def test_a_call_may_be_for_later(lab: Lab, when: list[str]) -> None:
    opsq(lab, "-A", "proj", "call", "proj.add", *when)
    assert waiting(lab)["headers"]["eta"]


def test_a_call_may_name_exchange_and_key(lab: Lab) -> None:
    opsq(lab, "-A", "proj", "call", "proj.add", "--exchange", "celery", "--routing-key", "celery")
    assert waiting(lab)["headers"]["task"] == "proj.add"


@pytest.mark.parametrize(
    "words", [["-a", "{}"], ["-k", "[1]"], ["-a", "nonsense"], ["--eta", "soon"], ["--expires", "x"]]
)
def test_a_call_that_makes_no_sense_is_one_line(lab: Lab, words: list[str]) -> None:
    done = opsq(lab, "-A", "proj", "call", "proj.add", *words, code=2)
    assert done.stderr.startswith("opsq: ")
    assert not lab.redis.exists("celery")


# -- purge -----------------------------------------------------------------------------------------------------------


def test_purging_empties_the_apps_queues_and_counts_as_celery_does(lab: Lab) -> None:
    for queue in ("celery", "celery", "mail"):
        lab.send("add", 1, 1, queue=queue)
    lab.send("add", 1, 1, countdown=3600)
    assert opsq(lab, "-A", "proj", "purge", "-f").stdout == "Purged 3 messages from 1 known task queue.\n"
    assert opsq(lab, "-A", "proj", "purge", "-f").stdout == "No messages purged from 1 queue\n"
    assert lab.depth("mail") == 1
    done = opsq(lab, "-A", "proj", "purge", "-Q", "mail,celery", "--yes", "--json")
    assert json.loads(done.stdout) == {"purged": 1, "queues": {"mail": 1, "celery": 0}}


def test_purging_asks_or_leaves_all_as_it_is(lab: Lab) -> None:
    lab.send("add", 1, 1)
    assert "nobody is here to answer" in opsq(lab, "-A", "proj", "purge", code=2).stderr
    assert "1 message would be purged from 1 queue" in opsq(lab, "-A", "proj", "purge", "--dry-run").stdout
    assert "no queue is left" in opsq(lab, "-A", "proj", "purge", "-f", "-X", "celery", code=2).stderr
    assert lab.depth() == 1


# -- what all of them take -------------------------------------------------------------------------------------------


def test_options_of_celerys_words_may_stand_in_the_environment(lab: Lab) -> None:
    opsq(lab, "-A", "proj", "call", "proj.add", CELERY_CALL_ARGS="[2, 3]", CELERY_CALL_QUEUE="mail")
    assert waiting(lab, "mail")["headers"]["argsrepr"] == "(2, 3)"
    done = opsq(lab, "-A", "proj", "purge", CELERY_PURGE_FORCE="1", CELERY_PURGE_QUEUES="mail,celery")
    assert done.stdout == "Purged 1 message from 2 known task queues.\n"
    lab.worker("-c", "1", "-n", "one@here")
    named = {"CELERY_INSPECT_JSON": "1", "CELERY_INSPECT_TIMEOUT": "2", "CELERY_INSPECT_DESTINATION": "one@here,x@y"}
    assert json.loads(opsq(lab, "-A", "proj", "inspect", "ping", **named).stdout) == {"one@here": {"ok": "pong"}}


@pytest.mark.parametrize("words", [("list", "bindings"), ("inspect", "--list"), ("beat", "--help")])
def test_options_of_celery_that_mean_nothing_here_are_taken_before_every_command(
    lab: Lab, words: tuple[str, ...]
) -> None:
    opsq(lab, "-A", "proj", "--skip-checks", "--loader", "app", *words)


# -- list, report, graph ---------------------------------------------------------------------------------------------


def test_bindings_are_listed_as_celery_lists_them(lab: Lab) -> None:
    opsq(lab, "-A", "proj", "call", "proj.add", "--queue", "mail")
    heads, lines, *rows = opsq(lab, "-A", "proj", "list", "bindings").stdout.splitlines()
    assert heads == f"{'Queue':<28} {'Exchange':<28} Routing Key"
    assert lines == f"{'-' * 16:<28} {'-' * 16:<28} {'-' * 16}"
    assert f"{'mail':<28} {'mail':<28} mail" in rows
    found = json.loads(opsq(lab, "-A", "proj", "list", "bindings", "--json").stdout)["bindings"]
    assert {"queue": "mail", "exchange": "mail", "routing_key": "mail"} in found


def test_the_report_tells_of_software_and_settings_and_no_secret(lab: Lab) -> None:
    done = opsq(lab, "-A", "proj", "report")
    for text in ("software -> opsq:", "platform -> system:", "loader   -> proj", "redis_password: '********'"):
        assert text in done.stdout
    assert "hunter2" not in done.stdout


def test_the_workers_are_drawn(lab: Lab) -> None:
    lab.worker("-c", "5", "-n", "drawn@here")
    picture = opsq(lab, "-A", "proj", "graph", "workers").stdout
    assert picture.startswith("digraph workers {")
    assert '"worker 0" [label="drawn@here"' in picture
    assert picture.count('shape="oval"') == 3
    assert '"worker 0" -> "broker";' in picture
    assert '"worker 0" -> "backend";' in picture
    generic = opsq(lab, "-A", "proj", "graph", "workers", "generic", "enumerate", "tmax:0").stdout
    assert 'label="Broker (redis://)"' in generic
    assert '"worker 0" [label="Worker 1"' in generic
    assert generic.count('shape="oval"') == 5


def test_workers_that_are_named_are_drawn_without_asking(lab: Lab) -> None:
    words = ["nodes:a,b,c,d,e", "threads:1,2,0,0,9", "broker:amqp://x", "wmax:3"]
    picture = opsq(lab, "-A", "proj", "graph", "workers", *words).stdout
    assert [name for name in "abcde" if f'label="{name}"' in picture] == ["a", "e"]
    assert 'label="amqp://x"' in picture
    for words in (["workers", "colour:red"], ["workers", "wmax:x"], ["bootsteps"]):
        assert opsq(lab, "-A", "proj", "graph", *words, code=2).stderr.startswith("opsq: ")


# -- shell -----------------------------------------------------------------------------------------------------------


def test_a_shell_knows_the_app_its_tasks_and_the_words_of_workflows(lab: Lab) -> None:
    script = (
        "print(app.main, celery is app, add(2, 3), named.name)\nprint(chain(add.s(1, 1), add.s(2)).apply().get())\n"
    )
    done = opsq(lab, "-A", "proj", "shell", "--python", stdin=script)
    assert done.stdout == "proj True 5 a.name.of.its.own\n4\n"


def test_an_error_in_a_script_is_told_as_python_tells_it(lab: Lab) -> None:
    done = subprocess.run(
        [*labs.OPSQ, "-A", "proj", "shell"],
        cwd=lab.folder,
        env=lab.spawn.environment(lab.environment),
        input="1/0",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_a_shell_may_leave_the_tasks_out(lab: Lab) -> None:
    done = opsq(lab, "-A", "proj", "shell", "-T", stdin="print('add' in globals(), group.__name__)")
    assert done.stdout == "False group\n"


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_a_shell_may_have_green_threads(lab: Lab, library: str) -> None:
    script = "import socket\nprint(socket.socket.__module__)"
    assert library in opsq(lab, "-A", "proj", "shell", f"--{library}", stdin=script).stdout


def test_a_prompt_that_is_not_installed_is_one_line(lab: Lab) -> None:
    done = opsq(lab, "-A", "proj", "shell", "--bpython", code=2)
    assert done.stderr == "opsq: bpython is not installed\nhint: pip install bpython\n"


# -- root ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run as root")
@pytest.mark.parametrize("words", [["worker", "-c", "1"], ["beat"]], ids=["worker", "beat"])
def test_a_process_of_root_says_in_one_line_how_not_to_be_one(lab: Lab, words: list[str]) -> None:
    def said(force: str | None) -> list[str]:
        environment: dict[str, Any] = {**lab.environment, "C_FORCE_ROOT": force}
        running = lab.spawn([*labs.OPSQ, "-A", "proj", *words, "-l", "info"], env=environment, cwd=lab.folder)
        begun = " ready." if words[0] == "worker" else "Starting..."
        lab.wait_for(lambda: begun in running.output(), "it has begun")
        assert running.stop() == 0
        return [line for line in running.output().splitlines() if "runs as root" in line]

    (line,) = said(None)
    for way in ("--uid USER", "user =", "User="):
        assert way in line
    assert said("1") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run as root")
def test_root_does_not_read_pickle_unless_it_is_said(lab: Lab) -> None:
    environment: dict[str, Any] = {**lab.environment, "C_FORCE_ROOT": None, "CELERY_ACCEPT_CONTENT": "json,pickle"}
    running = lab.spawn([*labs.OPSQ, "-A", "proj", "worker"], env=environment, cwd=lab.folder)
    assert running.wait() == 4
    assert "cannot run as root with pickle in accept_content" in running.output()
    lab.worker("-c", "1", "-Q", "forced", C_FORCE_ROOT="1", CELERY_ACCEPT_CONTENT="json,pickle")
    assert lab.value(lab.send("add", 1, 1, queue="forced", serializer="pickle")) == 2
