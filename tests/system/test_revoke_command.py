"""`opsq tasks revoke`: by id, by name, by queue; what it counts, what it leaves."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from support import lab as labs
from support.lab import OPSQ, Lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, "") as lab:
        yield lab


@pytest.fixture(autouse=True)
def _a_worker_meets_all_that_is_left(lab: Lab) -> Iterator[None]:
    yield
    worker = lab.worker("-c", "2", "-Q", "celery,mail", "-n", "last@%h", name="last")
    lab.wait_for(lambda: lab.is_quiet("celery", "mail"), "nothing is left")
    assert worker.stop() == 0


def revoke(lab: Lab, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(
        [*OPSQ, "-A", "proj", "tasks", "revoke", *words],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        cwd=lab.folder,
        env=lab.spawn.environment(lab.environment),
    )
    assert found.returncode == code, found
    return found


def told(found: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(found.stdout)
    return data


def ended(lab: Lab, task_id: str) -> str:
    lab.wait_for(lambda: lab.state(task_id) in ("SUCCESS", "REVOKED"), "it ends")
    return str(lab.state(task_id))


def states(lab: Lab, *ids: str) -> list[str]:
    """What came of tasks, once a worker was there."""
    worker = lab.worker("-c", "2", "-Q", "celery,mail", "-n", "first@%h", name="first")
    found = [ended(lab, each) for each in ids]
    assert worker.stop() == 0
    return found


def test_tasks_are_revoked_by_id_while_no_worker_is_there(lab: Lab) -> None:
    gone, stays = lab.send("add", 1, 1), lab.send("add", 1, 2)
    found = revoke(lab, gone, "--yes")
    assert found.stderr == "revoked: 1 task\n"
    assert states(lab, gone, stays) == ["REVOKED", "SUCCESS"]


def test_all_of_a_name_are_revoked_wherever_they_wait(lab: Lab) -> None:
    gone = [lab.send("nap", "a"), lab.send("nap", "b", queue="mail"), lab.send("nap", "c", priority=9)]
    stays = lab.send("add", 1, 1)
    answer = told(revoke(lab, "--name", "proj.nap", "--yes", "--json"))
    assert answer == {"chosen": 3, "revoked": 3, "terminated": 0, "in_flight": 0, "left_out": 0}
    assert states(lab, *gone, stays) == ["REVOKED"] * 3 + ["SUCCESS"]


def test_all_of_a_queue_are_revoked_and_no_other(lab: Lab) -> None:
    gone, stays = lab.send("add", 1, 1, queue="mail"), lab.send("add", 1, 1)
    assert told(revoke(lab, "--queue", "mail", "--yes", "--json"))["revoked"] == 1
    assert states(lab, gone, stays) == ["REVOKED", "SUCCESS"]


def test_a_dry_run_says_how_many_and_revokes_none(lab: Lab) -> None:
    ids = [lab.send("add", 1, number) for number in range(3)]
    found = revoke(lab, "--name", "proj.add", "--dry-run")
    assert found.stderr == "would revoke 3 tasks\n"
    assert states(lab, *ids) == ["SUCCESS"] * 3


def test_nothing_is_revoked_when_nobody_says_yes(lab: Lab) -> None:
    task_id = lab.send("add", 1, 1)
    assert "add --yes" in revoke(lab, task_id, code=2).stderr
    assert states(lab, task_id) == ["SUCCESS"]


@pytest.mark.parametrize("words", [[], ["an-id", "--name", "proj.add"], ["an-id", "--queue", "mail"]])
def test_it_must_be_said_which_are_meant(lab: Lab, words: list[str]) -> None:
    assert revoke(lab, *words, "--yes", code=2).stderr.startswith("opsq: ")


def test_what_runs_is_ended_only_when_asked_for(lab: Lab) -> None:
    worker = lab.worker("-c", "1", "-n", "busy@%h", name="busy")
    runs = lab.send("nap", "runs", 60)
    lab.wait_mark("begin", "runs")
    waits = lab.send("nap", "waits", 60)
    found = revoke(lab, "--name", "proj.nap", "--yes")
    assert found.stderr == "revoked: 1 task\n1 task may be running; --terminate ends those too\n"
    assert lab.state(runs) is None
    answer = told(revoke(lab, "--name", "proj.nap", "--terminate", "--yes", "--json"))
    assert answer["terminated"] == 1
    assert [ended(lab, each) for each in (runs, waits)] == ["REVOKED", "REVOKED"]
    assert worker.stop() == 0


def test_an_unknown_signal_is_a_mistake(lab: Lab) -> None:
    worker = lab.worker("-c", "1", "-n", "busy@%h", name="busy")
    found = revoke(lab, "an-id", "--terminate", "--signal", "NOPE", "--yes", code=2)
    assert found.stderr.startswith("opsq: 'NOPE' is no signal\n")
    assert worker.stop() == 0
