"""What Tab completes, in real shells; the stored scripts are what the commands say now.

OPSQ_TEST_STORE=1 writes them anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from support.processes import Spawner

from opsq.cli.commands.completion import SHELLS, script
from opsq.datastore import keys

STORED = {"bash": "opsq.bash", "zsh": "_opsq", "fish": "opsq.fish"}
COMPLETIONS = Path(__file__).parents[2] / "completions"

Complete = Callable[[str], set[str]]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_stored_script_is_what_the_commands_say_now(shell: str) -> None:
    path, text = COMPLETIONS / STORED[shell], script(shell).rstrip("\n") + "\n"
    if os.environ.get("OPSQ_TEST_STORE"):
        path.write_text(text)
    assert path.read_text() == text, "stale: write it anew with OPSQ_TEST_STORE=1, and look at the difference"


@pytest.fixture
def environment(tmp_path: Path, spawn: Spawner, redis_url: str, redis_client: redis.Redis) -> dict[str, str]:
    """A project with two programs, queues, hosts and a worker that has tasks."""
    (tmp_path / "opsq.toml").write_text(
        "services = []\n[programs.web]\ncommand = 'x'\n[programs.mailer]\ncommand = 'x'"
    )
    redis_client.sadd(keys.QUEUES, "mail", "media", "celery")
    redis_client.sadd(keys.HOSTS, "web01", "db01")
    redis_client.zadd(keys.WORKERS, {"w@h:1": 1})
    redis_client.set(keys.worker("w@h:1"), '{"tasks": ["shop.charge", "shop.ship"]}', px=60_000)
    folder = tmp_path / "bin"
    folder.mkdir()
    opsq = folder / "opsq"
    opsq.write_text(f'#!/bin/sh\nexec {sys.executable} -m opsq "$@"\n')
    opsq.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    return spawn.environment({"OPSQ_BROKER_URL": redis_url, "PATH": path, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"})


CASES = [
    ("opsq rest", {"restart"}),
    ("opsq -A proj rest", {"restart"}),
    ("opsq up --foreg", {"--foreground"}),
    ("opsq restart ", {"all", "mailer", "web"}),
    ("opsq signal HUP we", {"web"}),
    ("opsq queues pa", {"pause"}),
    ("opsq queues peek me", {"media"}),
    ("opsq worker -Q mail,ce", {"mail,celery"}),
    ("opsq run task shop.", {"shop.charge", "shop.ship"}),
    ("opsq worker --log-format j", {"json"}),
    ("opsq generate sy", {"systemd"}),
]


def _bash(line: str) -> list[str]:
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    text = f'COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _opsq_complete; printf "%s\\n" "${{COMPREPLY[@]}}"'
    return ["bash", "--norc", "-c", f"source '{COMPLETIONS}/opsq.bash'; {text}"]


def _fish(line: str) -> list[str]:
    return ["fish", "--no-config", "-c", f"source '{COMPLETIONS}/opsq.fish'; complete -C '{line}'"]


@pytest.mark.parametrize(("shell", "command"), [("bash", _bash), ("fish", _fish)])
def test_a_shell_completes_what_stands_there(
    shell: str,
    command: Callable[[str], list[str]],
    environment: dict[str, str],
    tmp_path: Path,
    redis_client: redis.Redis,
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    for line, wanted in CASES:
        done = subprocess.run(command(line), env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        found = {each.split("\t")[0] for each in done.stdout.splitlines() if each}
        assert (line, found, done.stderr) == (line, wanted, "")
    redis_client.flushdb()


@pytest.mark.skipif(not (shutil.which("zsh") and shutil.which("tmux")), reason="zsh or tmux is not installed")
def test_zsh_completes_what_stands_there(
    environment: dict[str, str], tmp_path: Path, wait_for: Callable[..., Any], redis_client: redis.Redis
) -> None:
    """In a terminal: its completion needs one."""

    def tmux(*words: str) -> str:
        line = ["tmux", "-S", str(tmp_path / "tmux"), *words]
        return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=30).stdout

    def screen() -> str:
        return tmux("capture-pane", "-p")

    tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", "-c", str(tmp_path), "zsh -f")
    try:
        begin = f"PS1=; autoload -Uz compinit; compinit -D -u; source {COMPLETIONS}/_opsq; clear; echo begun"
        tmux("send-keys", begin, "Enter")
        wait_for(lambda: "begun" in screen().splitlines()[0], 30)
        for line, wanted in CASES:
            if len(wanted) == 1:
                tmux("send-keys", line, "Tab")
                whole = line.rpartition(" ")[0] + " " + next(iter(wanted))
                wait_for(lambda whole=whole: whole in screen(), 20, whole)
                tmux("send-keys", "C-u")
    finally:
        tmux("kill-server")
    redis_client.flushdb()
