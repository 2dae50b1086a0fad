"""Options that a program adds to commands, and those that the environment gives, as in Celery."""

from __future__ import annotations

import sys
import time

import pytest
from support.processes import Running, Spawner
from support.worker_project import Project

OWN = """
from click import Option
from opsq import Celery
from opsq.signals import celeryd_init, user_preload_options

app = Celery("own")
app.user_options["worker"].add(Option(("--enable-my-option",), is_flag=True, default=False, help="Mine."))
app.user_options["preload"].add(Option(("-Z", "--template"), default="default", help="Which template to use."))


@user_preload_options.connect
def on_preload(options, **_):
    print("template:", options["template"], flush=True)


@celeryd_init.connect
def on_init(options, **_):
    print("mine:", options["enable_my_option"], flush=True)
"""


@pytest.fixture(autouse=True)
def own(project: Project) -> None:
    (project.folder / "own.py").write_text(OWN)


def run(spawn: Spawner, project: Project, *line: str, **environment: str) -> Running:
    argv = [sys.executable, "-m", "opsq", *line]
    return spawn(argv, env={**project.environment, **environment}, cwd=project.folder)


def ready(running: Running, word: str = " ready.") -> str:
    until = time.monotonic() + 30
    while word not in running.output():
        assert running.alive(), running.report()
        assert time.monotonic() < until, running.report()
        time.sleep(0.01)
    return running.output()


def test_a_worker_takes_the_programs_own_options(project: Project, spawn: Spawner) -> None:
    line = ["worker", "-A", "own", "--enable-my-option", "-Z", "blue", "-l", "info", "-c", "1"]
    text = ready(run(spawn, project, *line))
    assert "template: blue" in text
    assert "mine: True" in text


def test_their_defaults_are_told_when_they_are_not_given(project: Project, spawn: Spawner) -> None:
    text = ready(run(spawn, project, "-A", "own", "worker", "-l", "info", "-c", "1"))
    assert "template: default" in text
    assert "mine: False" in text


def test_a_beat_takes_them_too_and_an_option_that_nobody_knows_is_a_mistake(project: Project, spawn: Spawner) -> None:
    ready(run(spawn, project, "beat", "-A", "own", "-Z", "red"), "template: red")
    wrong = run(spawn, project, "worker", "-A", "own", "--enable-my-optiom")
    assert wrong.wait(30) == 2
    assert "no such option: --enable-my-optiom" in wrong.output()
    assert "did you mean --enable-my-option?" in wrong.output()


def test_options_of_a_worker_may_stand_in_the_environment(project: Project, spawn: Spawner) -> None:
    named = {"CELERY_WORKER_LOGLEVEL": "info", "CELERY_WORKER_QUEUES": "aa,bb", "CELERY_WORKER_HOSTNAME": "env@h"}
    text = ready(run(spawn, project, "-A", "proj", "worker", "-c", "1", **named))
    assert "env@h ready." in text
    assert "aa, bb" in text


@pytest.mark.parametrize("option", ["concurrency", "max-tasks-per-child"])
def test_a_wrong_value_in_the_environment_is_told_with_the_name_of_its_variable(
    project: Project, spawn: Spawner, option: str
) -> None:
    variable = f"CELERY_WORKER_{option}".upper().replace("-", "_")
    wrong = run(spawn, project, "-A", "proj", "worker", **{variable: "abc"})
    assert wrong.wait() == 2
    assert option in wrong.output()
    assert f"hint: the value is of the variable {variable}" in wrong.output()


def test_a_format_of_lines_in_the_environment_is_the_setting(project: Project, spawn: Spawner) -> None:
    named = {"CELERY_WORKER_LOG_FORMAT": "<%(message)s>"}
    assert " ready.>" in ready(run(spawn, project, "-A", "proj", "worker", "-c", "1", "-l", "info", **named))
