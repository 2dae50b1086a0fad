"""Processes that tests start: their output is kept, and they end with all that they have started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

#: Marks every process that a test started, however far it has gone from its parent.
MARK = "OPSQ_TEST_MARK"


def is_setting(name: str) -> bool:
    """Whether an environment variable would change what opsq or Celery do."""
    return name.startswith(("OPSQ_", "CELERY_")) and not name.startswith("OPSQ_TEST_")


@dataclass(frozen=True)
class Running:
    """A process that a test started; its output goes to a file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def alive(self) -> bool:
        return self.process.poll() is None

    def send(self, number: int) -> None:
        """A signal to this process alone."""
        self.process.send_signal(number)

    def wait(self, timeout: float = 30) -> int:
        """The exit code; the test fails if the process does not end in time."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name} did not end within {timeout} s\n{self.report()}")

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30) -> int:
        """Send a signal and wait for the end."""
        self.send(number)
        return self.wait(timeout)

    def report(self) -> str:
        state = "alive" if self.alive() else f"ended with {self.process.returncode}"
        return f"--- {self.name} (pid {self.pid}, {state}) ---\n{self.output()[-8000:]}"


@dataclass
class Spawner:
    """Starts processes in sessions of their own, and ends them with all that they have started."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid4().hex)
    running: list[Running] = field(default_factory=list)

    def __call__(
        self,
        argv: Sequence[str | Path],
        *,
        name: str = "",
        env: Mapping[str, str | None] | None = None,
        cwd: Path | str | None = None,
        **options: Any,
    ) -> Running:
        """Start `argv`; `env` is laid over a clean environment, None removes a variable."""
        name = name or f"{Path(argv[0]).name}-{len(self.running) + 1}"
        log = self.folder / f"{name}.log"
        options = {"stdin": subprocess.DEVNULL, "start_new_session": True, **options}
        with log.open("wb") as output:
            options = {"stdout": output, "stderr": subprocess.STDOUT, **options}
            process = subprocess.Popen(
                [str(word) for word in argv], env=self.environment(env), cwd=cwd or self.folder, **options
            )
        self.running.append(Running(name, process, log))
        return self.running[-1]

    def environment(self, changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """This process's environment without settings from outside, with a state directory of the test's own."""
        found: dict[str, str | None] = {key: value for key, value in os.environ.items() if not is_setting(key)}
        found |= {MARK: self.mark, "SPT_NOENV": "1", "PYTHONUNBUFFERED": "1", "C_FORCE_ROOT": "1"}
        found["OPSQ_STATE_DIR"] = str(self.folder / "state")
        found |= changes or {}
        return {key: value for key, value in found.items() if value is not None}

    def report(self) -> str:
        return "\n".join(each.report() for each in self.running)

    def end_all(self) -> None:
        """First politely, so that nothing is left in Redis; then by force, also what has left its parent."""
        for each in self.running:
            if each.alive():
                with suppress(ProcessLookupError):
                    each.send(signal.SIGTERM)
        until = time.monotonic() + 5
        for each in self.running:
            with suppress(subprocess.TimeoutExpired):
                each.process.wait(max(0.0, until - time.monotonic()))
        for process in self.leftovers():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for each in self.running:
            each.process.wait(10)

    def leftovers(self) -> list[psutil.Process]:
        """All processes that carry the mark of this test."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found
