"""Logs: rotation keeps every line, `opsq logs` shows and follows them, `--foreground` shows all."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from support.supervised import Supervised, python_program, writer

FLOOD = "import sys, time\nfor n in range(int(sys.argv[1])): print(f'{n:09d}' + 'x' * 90)\ntime.sleep(1000)"
QUICK = "startsecs = 0"


def test_rotation_keeps_every_line_and_deletes_only_the_oldest(shop: Supervised) -> None:
    count = 30_000
    shop.toml(
        python_program("whole", FLOOD, str(count), more=f"{QUICK}\nlog_max_bytes = 100_000\nlog_backups = 1000")
        + python_program("few", FLOOD, str(count), more=f"{QUICK}\nlog_max_bytes = 100_000\nlog_backups = 3")
    )
    shop.opsq("up")
    last = f"{count - 1:09d}".encode()
    for name in ("whole", "few"):
        shop.wait_for(lambda name=name: last in shop.log(name), 30)
    lines = shop.log("whole").split(b"\n")[:-1]
    assert [int(line[:9]) for line in lines] == list(range(count))
    files = sorted(path.name for path in shop.state.log.glob("few.log*"))
    assert len(files) == 4
    kept = shop.log("few").split(b"\n")[1:-1]  # the oldest file may begin inside a line
    assert [int(line[:9]) for line in kept] == list(range(count - len(kept), count))


def test_what_a_program_says_last_is_there_after_down(shop: Supervised) -> None:
    code = (
        "import os, signal, time\n"
        "def end(*_):\n    for n in range(5000): print(n)\n    os._exit(0)\n"
        "signal.signal(15, end); print('up'); time.sleep(1000)"
    )
    shop.toml(python_program("talks", code, more=QUICK))
    shop.opsq("up")
    shop.wait_for(lambda: shop.log("talks") == b"up\n")
    shop.opsq("down")
    assert shop.log("talks") == b"up\n" + b"".join(b"%d\n" % number for number in range(5000))


def test_logs_shows_the_last_lines_over_rotated_files(shop: Supervised) -> None:
    shop.toml(writer("count", 500, 0, more=f"{QUICK}\nlog_max_bytes = 300") + writer("other", 3, 0, more=QUICK))
    shop.opsq("up")
    shop.wait_for(lambda: shop.log("count").endswith(b"\n499\n") and shop.log("other") == b"0\n1\n2\n")
    shown = shop.opsq("logs", "count", "-n", "200").stdout.splitlines()
    assert shown == [str(number) for number in range(300, 500)]
    assert shop.opsq("logs", "count", "-n", "0").stdout == ""
    both = shop.opsq("logs", "-n", "2").stdout.splitlines()
    assert both == ["count | 498", "count | 499", "other | 1", "other | 2"]
    shop.opsq("down")
    assert shop.opsq("logs", "other").stdout == "0\n1\n2\n"


def test_logs_follows_through_rotation_and_a_restart(shop: Supervised, opsq_argv: list[str]) -> None:
    shop.toml(writer("count", pause_s=0.0005, more=f"{QUICK}\nlog_max_bytes = 500\nlog_backups = 100000"))
    shop.opsq("up")
    following = shop.spawner([*opsq_argv, "logs", "count", "-f", "-n", "1"], cwd=shop.folder, env=shop.environment)
    shop.wait_for(lambda: following.output().count("\n") > 500, 20)
    shop.replaced("count", shop.kill("count"))
    shop.wait_for(lambda: "\n50\n" in following.output(), 20)
    following.stop(signal.SIGTERM)
    lines = [int(line) for line in following.output().splitlines()]
    restart = lines.index(0)
    assert lines[:restart] == list(range(lines[0], lines[0] + restart))
    assert lines[restart:] == list(range(len(lines) - restart))


def test_foreground_shows_all_and_ctrl_c_stops_all(shop: Supervised, opsq_argv: list[str]) -> None:
    shop.toml(python_program("web", "import time; print('hello'); time.sleep(1000)", more=QUICK))
    front = shop.spawner([*opsq_argv, "up", "--foreground"], cwd=shop.folder, env=shop.environment)
    shop.wait_for(lambda: "web | hello" in front.output())
    assert shop.process("keeper").pid == front.pid
    assert "opsq is already up here" in shop.opsq("up", "--foreground", code=2).stderr
    assert front.stop(signal.SIGINT) == 0
    assert "going down" in front.output()
    assert [line for line in shop.leftovers() if "keeper" in line or "time.sleep" in line] == []


def test_a_second_signal_ends_what_takes_too_long(shop: Supervised, opsq_argv: list[str]) -> None:
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(1000)"
    shop.toml(python_program("rock", stubborn, more=f"{QUICK}\nstopwaitsecs = 1000"))
    front = shop.spawner([*opsq_argv, "up", "--foreground"], cwd=shop.folder, env=shop.environment)
    shop.wait_for(lambda: "rock | up" in front.output())
    front.send(signal.SIGTERM)
    shop.until("rock", state="STOPPING")
    assert front.stop(signal.SIGTERM) == 0


def test_a_service_manager_hears_when_all_is_ready(shop: Supervised, opsq_argv: list[str], tmp_path: Path) -> None:
    import socket

    address = tmp_path / "n.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        listener.settimeout(20)
        shop.toml(python_program("web", "import time; time.sleep(1000)", more="startsecs = 0.1"))
        environment = {**shop.environment, "NOTIFY_SOCKET": str(address)}
        front = shop.spawner([*opsq_argv, "up", "--foreground"], cwd=shop.folder, env=environment)
        assert listener.recv(100) == b"READY=1"
        assert shop.has("web", state="RUNNING")
        front.stop()


def test_a_full_disk_costs_lines_but_stops_no_program(shop: Supervised, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=False).returncode
    ):
        pytest.skip("cannot mount a small file system here")
    try:
        shop.toml(python_program("flood", FLOOD.replace("time.sleep", "open('done', 'w'); time.sleep"), "40000"))
        shop.state.create()
        shop.state.log.rmdir()
        shop.state.log.symlink_to(small)
        shop.opsq("up")
        shop.wait_for(lambda: (shop.folder / "done").exists(), 20)
        for path in small.glob("flood.log*"):
            os.truncate(path, 0)
        shop.opsq("restart", "flood")
        shop.wait_for(lambda: b"bytes lost, the disk was full" in shop.log("flood"), 20)
        shop.opsq("down")
    finally:
        subprocess.run(["umount", "-l", small], check=True)
