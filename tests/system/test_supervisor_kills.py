"""kill -9 of any of the three processes and of programs, while a program writes numbered lines: nothing is lost."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import time

import pytest
from support.processes import Spawner
from support.supervised import Supervised, python_program, writer

from opsq.runtime import pidfile
from opsq.runtime.process import boot_id, is_alive, send_signal, wait_end

KILLS = 12


def numbers(shop: Supervised, name: str = "count") -> list[int]:
    """The lines as numbers; a torn or foreign line fails here."""
    whole = shop.log(name).rpartition(b"\n")[0]
    return [int(line) for line in whole.split(b"\n")] if whole else []


def grows(shop: Supervised, beyond: int) -> None:
    shop.wait_for(lambda: len(numbers(shop)) > beyond, 15, f"more than {beyond} lines")


def assert_unbroken(shop: Supervised) -> None:
    """Each number once, in order, from the first on."""
    found = numbers(shop)
    assert found == list(range(len(found)))


@pytest.mark.parametrize("victim", ["scribe", "daemon", "keeper"])
def test_kills_of_one_of_the_three_cost_no_line_and_no_second_copy(shop: Supervised, victim: str) -> None:
    shop.toml(writer("count", more="startsecs = 0"))
    shop.opsq("up")
    counting = shop.process("count")
    for _ in range(KILLS):
        old = shop.kill(victim)
        shop.replaced(victim, old)
        grows(shop, len(numbers(shop)) + random.randint(1, 60))
    assert shop.until("count", state="RUNNING", restarts=0, ready=True)["pid"] == counting.pid
    assert shop.copies("sys.stdout.write") == 1
    shop.opsq("down")
    assert_unbroken(shop)
    assert shop.leftovers() == []


def test_kills_of_the_scribe_under_a_flood_cost_no_byte(shop: Supervised) -> None:
    """As fast as a program in C can write, so that a kill finds bytes wherever they can be."""
    shop.toml("[programs.count]\ncommand = 'seq 1000000000'\nstartsecs = 0\nlog_max_bytes = 0\n")
    shop.opsq("up")
    log = shop.state.log / "count.log"
    for _ in range(2 * KILLS):
        scribe, size = shop.process("scribe"), log.stat().st_size
        until = time.monotonic() + 10
        while log.stat().st_size == size and time.monotonic() < until:
            os.sched_yield()  # it takes but a few milliseconds
        assert send_signal(scribe, signal.SIGKILL)
        shop.replaced("scribe", scribe)
    shop.opsq("down")
    size = log.stat().st_size
    same = subprocess.run(["sh", "-c", f"seq 1000000000 | head -c {size} | cmp - {log}"], check=False).returncode == 0
    log.unlink()
    assert size > 1_000_000
    assert same


def test_all_three_killed_in_turn_while_rotation_goes_on(shop: Supervised) -> None:
    shop.toml(writer("count", pause_s=0.0002, more="startsecs = 0\nlog_max_bytes = 2000\nlog_backups = 1000"))
    shop.opsq("up")
    counting = shop.process("count")
    for victim in itertools.islice(itertools.cycle(["scribe", "daemon", "keeper"]), KILLS):
        shop.replaced(victim, shop.kill(victim))
        grows(shop, len(numbers(shop)) + 200)
    assert is_alive(counting)
    shop.opsq("down")
    assert_unbroken(shop)
    assert len(list(shop.state.log.glob("count.log.*"))) > 3
    assert all(path.stat().st_size <= 2000 for path in shop.state.log.glob("count.log*"))


@pytest.mark.parametrize("other", ["keeper", "daemon"])
def test_the_scribe_and_another_one_killed_at_once_are_back_by_themselves(shop: Supervised, other: str) -> None:
    shop.toml(writer("count", more="startsecs = 0"))
    shop.opsq("up")
    counting = shop.process("count")
    for _ in range(4):
        pair = {name: shop.process(name) for name in (other, "scribe")}
        for process in pair.values():
            send_signal(process, signal.SIGKILL)
        for name, process in pair.items():
            shop.replaced(name, process)
        grows(shop, len(numbers(shop)) + 20)
    assert is_alive(counting)
    shop.opsq("down")
    assert_unbroken(shop)


def test_keeper_and_daemon_killed_at_once_are_brought_back_by_up(shop: Supervised) -> None:
    shop.toml(writer("count", more="startsecs = 0"))
    shop.opsq("up")
    counting = shop.process("count")
    daemon, keeper = shop.process("daemon"), shop.process("keeper")
    send_signal(daemon, signal.SIGSTOP)  # so that it cannot act on the keeper's end
    shop.kill("keeper")
    send_signal(daemon, signal.SIGKILL)
    grows(shop, len(numbers(shop)) + 20)
    shop.opsq("status", code=3)
    shop.opsq("up")
    assert shop.process("keeper") != keeper
    assert shop.until("count", state="RUNNING")["pid"] == counting.pid
    assert shop.program("count")["reason"] == "adopted: its keeper had died"
    assert shop.copies("sys.stdout.write") == 1
    shop.opsq("down")
    assert not is_alive(counting)
    assert_unbroken(shop)


def test_the_scribe_goes_when_nobody_is_left(shop: Supervised) -> None:
    shop.toml(writer("count", more="startsecs = 0"))
    shop.opsq("up")
    daemon, scribe = shop.process("daemon"), shop.process("scribe")
    send_signal(daemon, signal.SIGSTOP)
    shop.kill("keeper")
    send_signal(daemon, signal.SIGKILL)
    grows(shop, len(numbers(shop)) + 20)
    assert is_alive(scribe)
    shop.kill("count")
    assert wait_end(scribe, 10)
    assert_unbroken(shop)


def test_a_program_whose_keeper_died_before_it_could_name_it_is_not_doubled(shop: Supervised) -> None:
    shop.toml(writer("count", more="startsecs = 0"))
    shop.opsq("up")
    counting, daemon = shop.process("count"), shop.process("daemon")
    send_signal(daemon, signal.SIGSTOP)
    shop.kill("keeper")
    send_signal(daemon, signal.SIGKILL)
    assert wait_end(daemon, 10)
    (shop.state.run / "count.pid").unlink()
    (shop.state.run / "state.json").unlink()
    shop.opsq("up")
    assert shop.until("count", state="RUNNING")["pid"] == counting.pid
    assert shop.copies("sys.stdout.write") == 1
    shop.opsq("down")
    assert not is_alive(counting)


def test_who_deletes_the_directory_and_starts_again_has_one_copy(shop: Supervised) -> None:
    shop.toml(writer("count", more="startsecs = 0"))
    shop.opsq("up")
    counting, keeper, daemon = (shop.process(name) for name in ("count", "keeper", "daemon"))
    shutil.rmtree(shop.state.root)
    shop.opsq("up")
    assert shop.until("count", state="RUNNING")["pid"] == counting.pid
    send_signal(daemon, signal.SIGKILL)
    shop.opsq("down")
    assert not is_alive(counting)
    assert wait_end(keeper, 10)
    shop.wait_for(lambda: shop.leftovers() == [])


def test_down_ends_programs_whose_keeper_and_daemon_were_killed(shop: Supervised) -> None:
    shop.toml(writer("count", more="startsecs = 0"))
    shop.opsq("up")
    counting, daemon = shop.process("count"), shop.process("daemon")
    send_signal(daemon, signal.SIGSTOP)
    shop.kill("keeper")
    send_signal(daemon, signal.SIGKILL)
    shop.opsq("down")
    assert not is_alive(counting)
    assert shop.leftovers() == []


def test_a_killed_program_is_back_at_once(shop: Supervised) -> None:
    shop.toml(writer("count", more="startsecs = 0"))
    shop.opsq("up")
    for kills in range(1, 6):
        old = shop.kill("count")
        shop.replaced("count", old)
        assert shop.until("count", restarts=kills, state="RUNNING")["reason"] is None
    assert shop.copies("sys.stdout.write") == 1


def test_an_adopted_program_that_ends_is_started_again(shop: Supervised) -> None:
    shop.toml(writer("count", more="startsecs = 0"))
    shop.opsq("up")
    shop.replaced("keeper", shop.kill("keeper"))
    shop.until("count", reason="adopted: its keeper had died")
    shop.replaced("count", shop.kill("count"))
    assert shop.until("count", state="RUNNING", restarts=1)["reason"] is None


def test_an_end_that_nobody_heard_is_told_to_the_next_daemon(shop: Supervised) -> None:
    shop.toml(writer("count", more="startsecs = 0"))
    shop.opsq("up")
    daemon = shop.process("daemon")
    send_signal(daemon, signal.SIGSTOP)
    old = shop.kill("count")
    send_signal(daemon, signal.SIGKILL)
    shop.replaced("count", old)
    shop.until("count", state="RUNNING", restarts=1)
    assert "count: EXITED: killed by SIGKILL" in shop.own_log()


def test_a_stop_goes_on_when_the_daemon_is_killed_during_it(shop: Supervised, opsq_argv: list[str]) -> None:
    end = "lambda *_: (time.sleep(0.5), os._exit(0))"
    slow = f"import os, signal, time\nsignal.signal(15, {end})\nprint('up')\ntime.sleep(1000)"
    shop.toml(python_program("slow", slow, more="startsecs = 0"))
    shop.opsq("up")
    shop.wait_for(lambda: shop.log("slow") == b"up\n")
    asking = shop.spawner([*opsq_argv, "stop", "slow"], cwd=shop.folder, env=shop.environment)
    shop.until("slow", state="STOPPING")
    shop.replaced("daemon", shop.kill("daemon"))
    assert asking.wait() == 0
    assert shop.until("slow", state="STOPPED")["wanted"] is False


def test_a_pidfile_of_a_reused_pid_is_not_taken_for_ours(shop: Supervised, spawn: Spawner) -> None:
    """The files of another time name pids that others have by now: nobody is adopted, nobody is killed."""
    shop.toml(writer("count", more="startsecs = 0"))
    stranger = spawn(["sleep", "1000"])
    shop.state.create()
    for name in ("keeper", "daemon", "scribe", "count"):
        now = pidfile.ProcessId(stranger.pid, 1, boot_id())
        pidfile.write(shop.state.run / f"{name}.pid", now)
    shop.opsq("up")
    assert shop.process("count").pid != stranger.pid
    shop.until("count", state="RUNNING", restarts=0)
    shop.opsq("down")
    assert stranger.alive()
