"""A command on a host: its outputs apart and bounded, its time limit, its whole process group."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsq.hosts.order import Order
from opsq.hosts.runner import Bounded, Ended, Runner, environment_of_commands


def order(**changes: Any) -> Order:
    told = {"kind": "run", "job": "aabbccdd", "part": 0, "targets": "x", "by": "me", "iat": 0.0, "exp": 0.0}
    return Order(**{**told, "nonce": "aabbccdd", **changes})


def run(**changes: Any) -> Ended:
    runner = Runner(order(**changes), environment_of_commands())
    try:
        return runner.run()
    finally:
        runner.close()


def test_outputs_are_apart_and_the_exit_code_is_told() -> None:
    ended = run(shell="echo out; echo err >&2; exit 3")
    assert (ended.exit, ended.signal, ended.out, ended.err, ended.reason) == (3, None, b"out\n", b"err\n", "")
    assert ended.begin <= ended.end


def test_arguments_reach_a_program_as_they_are() -> None:
    assert run(argv=("printf", "%s|", "a b", "$HOME", "*", "'")).out == b"a b|$HOME|*|'|"


def test_a_signal_is_told() -> None:
    ended = run(shell="kill -9 $$")
    assert (ended.exit, ended.signal) == (None, signal.SIGKILL)


@pytest.mark.parametrize(("argv", "code"), [(("no-such-program-at-all",), 127), (("/etc/passwd",), 126)])
def test_a_program_that_cannot_be_run_ends_as_in_a_shell(argv: tuple[str, ...], code: int) -> None:
    ended = run(argv=argv)
    assert ended.exit == code
    assert ended.err.startswith(f"opsq: cannot run {argv[0]}: ".encode())


def test_a_time_limit_ends_the_whole_group(tmp_path: Path, wait_for: Callable[..., Any]) -> None:
    pids = tmp_path / "pids"
    script = (
        f"trap '' TERM; (trap '' TERM; echo $$ >> {pids}; sh -c 'echo $$ >> {pids}; sleep 100'; sleep 100) & sleep 100"
    )
    begin = time.monotonic()
    ended = run(shell=script, timeout_s=0.5, kill_after_s=0.3)
    assert (ended.signal, ended.reason) == (signal.SIGKILL, "timeout")
    assert time.monotonic() - begin < 20
    children = [int(line) for line in pids.read_text().split()]
    assert len(children) == 2
    wait_for(lambda: not any(_runs(pid) for pid in children), what="all of the group has ended")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_cancel_ends_it() -> None:
    runner = Runner(order(shell="sleep 100"), environment_of_commands())
    found: list[Ended] = []
    thread = threading.Thread(target=lambda: found.append(runner.run()))
    thread.start()
    runner.end("cancelled")
    thread.join(20)
    runner.close()
    assert (found[0].signal, found[0].reason) == (signal.SIGTERM, "cancelled")


def test_what_a_command_leaves_behind_does_not_hold_it_up() -> None:
    begin = time.monotonic()
    ended = run(shell="sleep 30 & echo $!; exit 0")
    assert ended.exit == 0
    assert time.monotonic() - begin < 20
    os.kill(int(ended.out), signal.SIGKILL)


def test_long_output_keeps_its_beginning_and_its_end_and_is_counted() -> None:
    ended = run(shell="echo begin; head -c 3000000 /dev/zero; echo end", output=1000)
    assert ended.out_bytes == 3_000_010
    assert len(ended.out) == 1000
    assert ended.out.startswith(b"begin\n")
    assert ended.out.endswith(b"end\n")


@given(st.lists(st.binary(max_size=50)), st.integers(0, 60))
def test_bounded_output_is_the_first_and_the_last_half(parts: list[bytes], limit: int) -> None:
    bounded = Bounded(limit)
    for part in parts:
        bounded.add(part)
    whole, half = b"".join(parts), limit // 2
    wanted = whole if len(whole) <= limit else whole[:half] + whole[len(whole) - (limit - half) :]
    assert bounded.kept() == wanted
    assert bounded.total == len(whole)


def test_commands_do_not_see_the_agents_settings() -> None:
    found = environment_of_commands(
        {
            "OPSQ_BROKER_URL": "redis://:secret@x",
            "CELERY_BROKER_URL": "y",
            "NOTIFY_SOCKET": "z",
            "OPSQ_PROGRAM": "agent",
        }
    )
    assert not {"OPSQ_BROKER_URL", "CELERY_BROKER_URL", "NOTIFY_SOCKET"} & found.keys()
    assert found["OPSQ_PROGRAM"] == "agent"  # by it the supervisor finds all that the agent has started
    assert {"HOME", "PATH"} <= found.keys()
