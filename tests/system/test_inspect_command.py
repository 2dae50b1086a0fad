"""`opsq inspect` and `opsq control`: Celery's words, flags and output."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from support import lab as labs
from support.lab import OPSQ, Lab

TASKS = """
from opsq.worker.control import control_command, inspect_command

SAID = []


@inspect_command(args=[("times", int)], signature="<times>")
def said(state, times=1):
    '''What was said here.'''
    return {"ok": " ".join(SAID * times), "at": state.hostname}


@control_command(variadic="words", signature="[word1 [word2]]")
def say(state, words):
    '''Say something.'''
    SAID.extend(words)
    return {"ok": len(SAID)}


@app.task(rate_limit="5/m")
def limited():
    pass
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        lab.worker("-c", "1", "-n", "one@here", name="one")
        yield lab


def opsq(lab: Lab, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(
        [*OPSQ, "-A", "proj", *words],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        cwd=lab.folder,
        env=lab.spawn.environment(lab.environment),
    )
    assert found.returncode == code, found
    return found


def test_a_ping_is_shown_as_celery_shows_it(lab: Lab) -> None:
    found = opsq(lab, "inspect", "ping", "-t", "2")
    assert found.stdout == "->  one@here: OK\n    pong\n"
    assert found.stderr == "\n1 node online.\n"


def test_options_may_stand_anywhere(lab: Lab) -> None:
    for words in (("inspect", "-d", "one@here", "ping", "--json"), ("--json", "inspect", "ping", "-d", "one@here,x@y")):
        assert json.loads(opsq(lab, *words).stdout) == {"one@here": {"ok": "pong"}}


def test_words_become_the_arguments_of_the_command(lab: Lab) -> None:
    told = json.loads(opsq(lab, "inspect", "registered", "rate_limit", "serializer", "-j", "-t", "2").stdout)
    assert "proj.limited [rate_limit=5/m serializer=json]" in told["one@here"]
    assert opsq(lab, "control", "rate_limit", "proj.limited", "7/m", "-t", "2").stdout == (
        "->  one@here: OK\n    new rate limit set successfully\n"
    )


def test_a_projects_own_commands_work(lab: Lab) -> None:
    assert json.loads(opsq(lab, "control", "say", "a", "b", "-j", "-t", "2").stdout) == [{"one@here": {"ok": 2}}]
    assert json.loads(opsq(lab, "inspect", "said", "2", "-j", "-t", "2").stdout)["one@here"]["ok"] == "a b a b"
    assert "What was said here." in opsq(lab, "inspect", "--list").stdout


def test_an_error_of_a_worker_is_shown_and_ends_with_1(lab: Lab) -> None:
    found = opsq(lab, "control", "rate_limit", "proj.nope", "7/m", "-t", "2", code=1)
    assert found.stdout == "->  one@here: ERROR\n    unknown task\n"


def test_nobody_replies(lab: Lab) -> None:
    found = opsq(lab, "inspect", "ping", "-d", "nobody@here", "-t", "0.3", code=3)
    assert found.stderr.startswith("opsq: no worker has replied within 0.3 s")


@pytest.mark.parametrize(
    "words",
    [["inspect", "nope"], ["inspect"], ["inspect", "shutdown"], ["inspect", "ping", "more"], ["inspect", "said", "x"]],
)
def test_mistakes_are_told(lab: Lab, words: list[str]) -> None:
    found = opsq(lab, *words, code=2)
    assert found.stderr.startswith("opsq: ")
    assert "Traceback" not in found.stderr


def test_a_worker_is_shut_down(lab: Lab) -> None:
    other = lab.worker("-c", "1", "-n", "two@here", name="two")
    opsq(lab, "control", "shutdown", "-d", "two@here", "-t", "0.3")
    assert other.wait() == 0
    assert "Got shutdown from remote" in other.output()
