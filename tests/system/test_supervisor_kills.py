"""kill -9 of any of the three processes and of programs, while a program writes numbered lines: nothing is lost."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.processes import Spawner
from support.supervised import Supervised, python_program, writer

from opsq.runtime import pidfile
from opsq.runtime.process import boot_id, is_alive, send_signal

KILLS = 12


@pytest.fixture
def project(tmp_path: Path, spawn: Spawner, wait_for: Callable[..., Any]) -> Supervised:
    folder = tmp_path / "shop"
    folder.mkdir()
    return Supervised(folder, spawn, wait_for)


def numbers(project: Supervised, name: str = "count") -> list[int]:
    """The lines as numbers; a torn or foreign line fails here."""
    whole = project.log(name).rpartition(b"\n")[0]
    return [int(line) for line in whole.split(b"\n")] if whole else []


def grows(project: Supervised, beyond: int) -> None:
    project.wait_for(lambda: len(numbers(project)) > beyond, 15, f"more than {beyond} lines")


def assert_unbroken(project: Supervised) -> None:
    """Each number once, in order, from the first on."""
    found = numbers(project)
    assert found == list(range(len(found)))


@pytest.mark.parametrize("victim", ["scribe", "daemon", "keeper"])
def test_kills_of_one_of_the_three_cost_no_line_and_no_second_copy(project: Supervised, victim: str) -> None:
    project.toml(writer("count", more="startsecs = 0"))
    project.opsq("up")
    counting = project.process("count")
    for _ in range(KILLS):
        old = project.kill(victim)
        project.replaced(victim, old)
        grows(project, len(numbers(project)) + random.randint(1, 60))
    assert project.until("count", state="RUNNING", restarts=0, ready=True)["pid"] == counting.pid
    assert project.copies("sys.stdout.write") == 1
    project.opsq("down")
    assert_unbroken(project)
    assert project.leftovers() == []


def test_all_three_killed_in_turn_while_rotation_goes_on(project: Supervised) -> None:
    project.toml(writer("count", pause_s=0.0002, more="startsecs = 0\nlog_max_bytes = 2000\nlog_backups = 1000"))
    project.opsq("up")
    counting = project.process("count")
    for victim in itertools.islice(itertools.cycle(["scribe", "daemon", "keeper"]), KILLS):
        project.replaced(victim, project.kill(victim))
        grows(project, len(numbers(project)) + 200)
    assert is_alive(counting)
    project.opsq("down")
    assert_unbroken(project)
    assert len(list(project.state.log.glob("count.log.*"))) > 3
    assert all(path.stat().st_size <= 2000 for path in project.state.log.glob("count.log*"))


def test_keeper_and_daemon_killed_at_once_are_brought_back_by_up(project: Supervised) -> None:
    project.toml(writer("count", more="startsecs = 0"))
    project.opsq("up")
    counting = project.process("count")
    daemon, keeper = project.process("daemon"), project.process("keeper")
    send_signal(daemon, 19)  # so that it cannot act on the keeper's end
    project.kill("keeper")
    send_signal(daemon, 9)
    grows(project, len(numbers(project)) + 20)
    project.opsq("status", code=3)
    project.opsq("up")
    assert project.process("keeper") != keeper
    assert project.until("count", state="RUNNING")["pid"] == counting.pid
    assert project.program("count")["reason"] == "adopted: its keeper had died"
    assert project.copies("sys.stdout.write") == 1
    project.opsq("down")
    assert not is_alive(counting)
    assert_unbroken(project)


def test_down_ends_programs_whose_keeper_and_daemon_were_killed(project: Supervised) -> None:
    project.toml(writer("count", more="startsecs = 0"))
    project.opsq("up")
    counting, daemon = project.process("count"), project.process("daemon")
    send_signal(daemon, 19)
    project.kill("keeper")
    send_signal(daemon, 9)
    project.opsq("down")
    assert not is_alive(counting)
    assert project.leftovers() == []


def test_a_killed_program_is_back_at_once(project: Supervised) -> None:
    project.toml(writer("count", more="startsecs = 0"))
    project.opsq("up")
    for kills in range(1, 6):
        old = project.kill("count")
        project.replaced("count", old)
        assert project.until("count", restarts=kills, state="RUNNING")["reason"] is None
    assert project.copies("sys.stdout.write") == 1


def test_an_adopted_program_that_ends_is_started_again(project: Supervised) -> None:
    project.toml(writer("count", more="startsecs = 0"))
    project.opsq("up")
    project.replaced("keeper", project.kill("keeper"))
    project.until("count", reason="adopted: its keeper had died")
    project.replaced("count", project.kill("count"))
    assert project.until("count", state="RUNNING", restarts=1)["reason"] is None


def test_an_end_that_nobody_heard_is_told_to_the_next_daemon(project: Supervised) -> None:
    project.toml(writer("count", more="startsecs = 0"))
    project.opsq("up")
    daemon = project.process("daemon")
    send_signal(daemon, 19)
    old = project.kill("count")
    send_signal(daemon, 9)
    project.replaced("count", old)
    project.until("count", state="RUNNING", restarts=1)
    assert "count: EXITED: killed by SIGKILL" in project.own_log()


def test_a_stop_goes_on_when_the_daemon_is_killed_during_it(project: Supervised, opsq_argv: list[str]) -> None:
    slow = "import signal, time\nsignal.signal(15, lambda *_: (time.sleep(0.5), exit()))\nprint('up')\ntime.sleep(1000)"
    project.toml(python_program("slow", slow, more="startsecs = 0"))
    project.opsq("up")
    project.wait_for(lambda: project.log("slow") == b"up\n")
    asking = project.spawner([*opsq_argv, "stop", "slow"], cwd=project.folder, env=project.environment)
    project.until("slow", state="STOPPING")
    project.replaced("daemon", project.kill("daemon"))
    assert asking.wait() == 0
    assert project.until("slow", state="STOPPED")["wanted"] is False


def test_a_pidfile_of_a_reused_pid_is_not_taken_for_ours(project: Supervised, spawn: Spawner) -> None:
    """The files of another time name pids that others have by now: nobody is adopted, nobody is killed."""
    project.toml(writer("count", more="startsecs = 0"))
    stranger = spawn(["sleep", "1000"])
    project.state.create()
    for name in ("keeper", "daemon", "scribe", "count"):
        now = pidfile.ProcessId(stranger.pid, 1, boot_id())
        pidfile.write(project.state.run / f"{name}.pid", now)
    project.opsq("up")
    assert project.process("count").pid != stranger.pid
    project.until("count", state="RUNNING", restarts=0)
    project.opsq("down")
    assert stranger.alive()
