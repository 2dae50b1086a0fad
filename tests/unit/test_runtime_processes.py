"""Processes by pid and start, pidfiles, readiness, delays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsq.runtime import notify, pidfile
from opsq.runtime.backoff import delay_s
from opsq.runtime.process import (
    ProcessId,
    end,
    identify,
    is_alive,
    myself,
    open_pidfd,
    send_signal,
    start_ticks,
    wait_end,
)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def named(process: subprocess.Popen[bytes]) -> ProcessId:
    found = identify(process.pid)
    assert found is not None
    return found


def test_a_process_is_known_by_its_start_not_by_its_pid_alone(sleeper: subprocess.Popen[bytes]) -> None:
    process = named(sleeper)
    assert is_alive(process)
    for other in (replace(process, start_ticks=process.start_ticks + 1), replace(process, boot_id="another")):
        assert not is_alive(other)
        assert open_pidfd(other) is None
        assert not send_signal(other, signal.SIGKILL)
        assert wait_end(other, 0)
    assert is_alive(process)


def test_a_zombie_has_ended(sleeper: subprocess.Popen[bytes]) -> None:
    process = named(sleeper)
    assert send_signal(process, signal.SIGKILL)
    assert wait_end(process, 10)
    assert start_ticks(process.pid) is not None
    assert not is_alive(process)


def test_waiting_for_an_end_gives_up_in_time(sleeper: subprocess.Popen[bytes]) -> None:
    assert not wait_end(named(sleeper), 0.01)
    assert end(named(sleeper), 5)


def test_a_pidfile_of_a_reused_pid_names_nobody(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    path = tmp_path / "web.pid"
    process = named(sleeper)
    pidfile.write(path, process)
    assert path.read_text() == f"{process.pid} {process.start_ticks} {process.boot_id}\n"
    assert pidfile.holder(path) == process
    for stranger in (replace(process, start_ticks=process.start_ticks - 1), replace(process, boot_id="another-boot")):
        pidfile.write(path, stranger)
        assert pidfile.read(path) == stranger
        assert pidfile.holder(path) is None


@pytest.mark.parametrize("content", [b"", b"12", b"12 13", b"a b c", b"\xff\xfe 1 2", b"1 2 3 4"])
def test_a_broken_pidfile_names_nobody(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "web.pid"
    path.write_bytes(content)
    assert pidfile.holder(path) is None
    assert pidfile.holder(tmp_path / "absent.pid") is None


@given(st.integers(1, 2**22), st.integers(0, 2**62), st.uuids().map(str))
def test_a_process_survives_its_text(pid: int, ticks: int, boot: str) -> None:
    process = ProcessId(pid, ticks, boot)
    assert ProcessId.parse(str(process)) == process


def test_a_lock_is_held_until_its_last_descriptor_is_closed(tmp_path: Path) -> None:
    first = pidfile.lock(tmp_path / "lock")
    assert first is not None
    assert pidfile.lock(tmp_path / "lock") is None
    second = os.dup(first)
    os.close(first)
    assert pidfile.lock(tmp_path / "lock") is None
    os.close(second)
    again = pidfile.lock(tmp_path / "lock")
    assert again is not None
    os.close(again)


def test_the_listener_hears_who_is_ready(tmp_path: Path) -> None:
    listener = notify.Listener(tmp_path / "n.sock")
    environment = {"NOTIFY_SOCKET": str(tmp_path / "n.sock")}
    assert notify.ready("all well", environment)
    code = "from opsq.runtime import notify; notify.stopping()"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, check=True)
    first, second = listener.receive()
    assert (first.pid, first.values) == (os.getpid(), {"READY": "1", "STATUS": "all well"})
    assert second.pid != first.pid
    assert second.values == {"STOPPING": "1"}
    listener.close()
    assert not notify.notify("READY=1", environment, patience_s=0)
    assert not notify.ready(environ={})


def test_my_own_name() -> None:
    assert myself().pid == os.getpid()
    assert is_alive(myself())


@given(st.integers(1, 10_000))
def test_delays_double_up_to_their_bound(failures: int) -> None:
    delay = delay_s(failures, first_s=0.5, most_s=30, jitter=0.1)
    assert min(30, 0.5 * 2 ** min(failures - 1, 20)) <= delay <= 30 * 1.1
