"""A real terminal (tmux) of some width, and what stands in it, held against stored text."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

STORED = Path(__file__).parents[1] / "screen" / "stored"


class Terminal:
    """A tmux server of the test's own."""

    def __init__(self, folder: Path, environment: dict[str, str], columns: int, wait_for: Callable[..., Any]) -> None:
        self.socket, self.wait_for, self.columns = folder / "tmux", wait_for, columns
        self.calls = 0
        environment = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
        self.environment = {**environment, "TERM": "screen-256color", "TZ": "UTC", "PS1": "", "LC_ALL": "C.UTF-8"}
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", "60", "-c", str(folder), "sh")

    def tmux(self, *line: str) -> str:
        found = subprocess.run(
            ["tmux", "-S", str(self.socket), *line],
            capture_output=True,
            text=True,
            env={key: value for key, value in self.environment.items() if key not in ("TMUX", "NO_COLOR")},
            timeout=30,
        )
        return found.stdout

    def run(self, *line: str) -> str:
        """Type a command; the returned text stands on the screen when it has ended."""
        words = " ".join(shlex.quote(word) for word in (sys.executable, "-m", "opsq", *line))
        self.calls += 1
        self.tmux("send-keys", f"clear; {words}; echo 'end'-{self.calls}", "Enter")
        return f"end-{self.calls}"

    def see(self, *line: str, styled: bool = False) -> str:
        """What stands on the screen after a command has run."""
        end = self.run(*line)
        self.wait_for(lambda: end in self.screen(), 30, "the command ends")
        return self.screen(styled).partition(end)[0]

    def screen(self, styled: bool = False) -> str:
        return self.tmux("capture-pane", "-p", *(["-e"] if styled else []))

    def end(self) -> None:
        self.tmux("kill-server")


def check(name: str, terminal: Terminal, shown: str) -> None:
    """The screen is as stored; what differs each time is told apart by what it means."""
    shown = re.sub(r"\d+\.\d+\.\d+", "VERSION", "\n".join(line.rstrip() for line in shown.rstrip().splitlines()))
    assert all(len(line) <= terminal.columns for line in shown.splitlines())
    path = STORED / f"{name}-{terminal.columns}.txt"
    if os.environ.get("OPSQ_TEST_STORE"):
        path.write_text(shown + "\n")
    assert shown + "\n" == path.read_text()
