"""A task that was revoked is ended only if it still runs: whatever runs in its place by then is left alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from opsq.runtime import process
from opsq.runtime.process import ProcessId
from opsq.worker import slots
from opsq.worker.children import Child, Children
from opsq.worker.slots import Facts, Slots

NUMBER = 7


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """In place of a child: a process that does nothing."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as running:
        yield running
        running.kill()


@pytest.fixture
def children(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> Iterator[Children]:
    """The parent's side, with that process as the child of the first slot."""
    table = Slots.create(tmp_path / "x.slots", Facts("w@h:0badcafe", ["celery"], "", [1]))
    children = Children(table, *[lambda *_: None] * 4)
    who = ProcessId(sleeper.pid, process.start_ticks(sleeper.pid) or 0, process.boot_id())
    slot = table.slot(0)
    slot.words[slots.STATE] = slots.BUSY
    children.alive[0] = Child(slot, None, who)  # type: ignore[arg-type]
    yield children
    table.let_go()


def test_the_task_that_runs_is_ended(children: Children, sleeper: subprocess.Popen[bytes]) -> None:
    child = children.alive[0]
    child.slot.words[slots.CURRENT] = NUMBER
    children.terminate(0, NUMBER, signal.SIGTERM)
    assert sleeper.wait(10) == -signal.SIGKILL
    assert child.terminated == (NUMBER, signal.SIGTERM)


@pytest.mark.parametrize("runs", [0, NUMBER + 1])
def test_what_runs_in_its_place_goes_on(children: Children, sleeper: subprocess.Popen[bytes], runs: int) -> None:
    child = children.alive[0]
    child.slot.words[slots.CURRENT] = runs
    children.terminate(0, NUMBER, signal.SIGTERM)
    until = time.monotonic() + 10
    while psutil.Process(sleeper.pid).status() == psutil.STATUS_STOPPED and time.monotonic() < until:
        time.sleep(0.001)
    assert psutil.Process(sleeper.pid).status() != psutil.STATUS_STOPPED
    assert sleeper.poll() is None
    assert child.terminated is None
    assert not child.killed


def test_a_child_that_has_gone_is_passed_by(children: Children) -> None:
    children.terminate(5, NUMBER, signal.SIGTERM)
    children.alive[0].killed = "for something else"
    children.alive[0].slot.words[slots.CURRENT] = NUMBER
    children.terminate(0, NUMBER, signal.SIGTERM)
    assert children.alive[0].terminated is None
