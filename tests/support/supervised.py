"""A folder under `opsq up`: its commands, its state, and the processes behind it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from opsq.exceptions import OpsqError
from opsq.runtime import pidfile
from opsq.runtime.process import ProcessId, send_signal, wait_end
from opsq.runtime.statedir import StateDir
from opsq.supervisor import client
from opsq.supervisor.messages import Status

from .processes import Spawner

#: Writes its numbers as fast as a terminal could show them, then waits.
WRITER = """
import sys, time
for number in range(int(sys.argv[1])):
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
    time.sleep(float(sys.argv[2]))
time.sleep(1000)
"""


@dataclass
class Supervised:
    """One project's folder; everything in it ends with the test."""

    folder: Path
    spawner: Spawner
    wait_for: Callable[..., Any]
    environment: dict[str, str | None] = field(default_factory=lambda: {"OPSQ_STATE_DIR": None})

    @property
    def state(self) -> StateDir:
        return StateDir(self.folder.resolve() / ".opsq")

    def toml(self, text: str) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "opsq.toml").write_text(text)

    def opsq(self, *words: str, code: int | None = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and compare its exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "opsq", *words],
            cwd=self.folder,
            env=self.spawner.environment(self.environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if code is not None:
            assert done.returncode == code, (
                f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.own_log()}"
            )
        return done

    def programs(self) -> dict[str, dict[str, Any]]:
        return {program["name"]: program for program in client.ask(self.state, Status())["programs"]}

    def program(self, name: str) -> dict[str, Any]:
        return self.programs()[name]

    def has(self, name: str, **values: Any) -> bool:
        """Whether a program's status has these values now."""
        try:
            told = self.programs().get(name)
        except OpsqError:
            return False
        return told is not None and all(told[key] == value for key, value in values.items())

    def until(self, name: str, timeout: float = 15, **values: Any) -> dict[str, Any]:
        """Wait for these values."""
        self.wait_for(lambda: self.has(name, **values), timeout, f"{name} {values}")
        return self.program(name)

    def process(self, name: str) -> ProcessId:
        """The living process that a pidfile names: a program, "keeper", "scribe" or "daemon"."""
        return self.wait_for(lambda: pidfile.holder(self.state.run / f"{name}.pid"), 10, f"{name} runs")

    def kill(self, name: str, signum: int = signal.SIGKILL) -> ProcessId:
        """End a process the hard way and wait for its end."""
        process = self.process(name)
        assert send_signal(process, signum)
        assert wait_end(process, 10)
        return process

    def replaced(self, name: str, old: ProcessId) -> ProcessId:
        """The process that took the place of another one."""

        def other() -> ProcessId | None:
            found = pidfile.holder(self.state.run / f"{name}.pid")
            return found if found != old else None

        return self.wait_for(other, 10, f"a new {name}")

    def log(self, name: str) -> bytes:
        """All that a program wrote, over all rotated files."""
        folder = self.state.log
        files = sorted(folder.glob(f"{name}.log.*"), key=lambda path: int(path.suffix[1:]))
        return b"".join(path.read_bytes() for path in [*files, folder / f"{name}.log"] if path.exists())

    def own_log(self) -> str:
        return self.log("opsq").decode(errors="replace")

    def copies(self, text: str) -> int:
        """How many processes of this test have this text in their command line."""
        return sum(text in line for line in self.leftovers())

    def end(self) -> None:
        """Kill all that is still there; a Redis is found by its pidfile only, it overwrites its environment."""
        for _ in range(10):
            for name, signum in (("daemon", signal.SIGSTOP), ("keeper", signal.SIGKILL), ("daemon", signal.SIGKILL)):
                if (process := pidfile.holder(self.state.run / f"{name}.pid")) is not None:
                    send_signal(process, signum)
            left = [process for path in self.state.run.glob("*.pid") if (process := pidfile.holder(path))]
            for process in left:
                send_signal(process, signal.SIGKILL)
                wait_end(process, 10)
            if not left:
                return

    def leftovers(self) -> list[str]:
        """Command lines of everything that this test started and that still runs."""
        found = []
        for process in self.spawner.leftovers():
            with suppress(psutil.Error):  # it has ended meanwhile
                found.append(" ".join(process.cmdline()))
        return found


def python_program(name: str, code: str, *arguments: str, more: str = "") -> str:
    """A `[programs.NAME]` table for a piece of Python."""
    command = json.dumps([sys.executable, "-I", "-S", "-u", "-c", code, *arguments])
    return f"[programs.{name}]\ncommand = {command}\n{more}\n"


def writer(name: str, count: int = 10**9, pause_s: float = 0.001, more: str = "") -> str:
    """A program that writes numbered lines."""
    return python_program(name, WRITER, str(count), str(pause_s), more=more)
