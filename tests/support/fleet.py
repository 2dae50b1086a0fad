"""Some hosts with their agents, all on this machine: each has a name and keys of its own and trusts one operator."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opsq.hosts import policy
from opsq.hosts.keyring import KeyRing

from .processes import Running, Spawner


@dataclass
class Fleet:
    """The operator's folder, and the hosts that he has started."""

    folder: Path
    spawner: Spawner
    url: str
    wait_for: Callable[..., Any]
    agents: dict[str, Running] = field(default_factory=dict)

    @property
    def ring(self) -> KeyRing:
        """The operator's keys."""
        ring = KeyRing(self.folder / "operator" / "keys")
        ring.ensure()
        return ring

    def ring_of(self, host: str) -> KeyRing:
        """A host's keys."""
        return KeyRing(self.folder / host / "keys")

    def prepare(self, host: str) -> None:
        """Let a host trust the operator."""
        ring = self.ring_of(host)
        ring.ensure()
        policy.trust(ring, "operator", self.ring.operator().public)

    def start(
        self, host: str, *flags: str, label: str = "", wrap: Sequence[str] = (), url: str | None = None
    ) -> Running:
        """Start a host's agent and wait until it is ready. `wrap`: a command line that it is run by."""
        self.prepare(host)
        environment = {"OPSQ_STATE_DIR": str(self.folder / host), "OPSQ_BROKER_URL": url or self.url}
        words = [sys.executable, "-m", "opsq", "agent", "-l", "info", "--name", host, *flags]
        agent = self.spawner([*wrap, *words], name=label or f"agent-{host}", env=environment)
        self.agents[host] = agent
        self.wait_for(lambda: " ready." in agent.output() or not agent.alive(), 30, f"the agent of {host} is ready")
        assert agent.alive(), agent.report()
        return agent

    def environment(self) -> dict[str, str]:
        """The operator's environment."""
        told = {"OPSQ_STATE_DIR": str(self.folder / "operator"), "OPSQ_BROKER_URL": self.url}
        return self.spawner.environment(told)

    def opsq(self, *words: str, code: int | None = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command of the operator to its end and compare its exit code."""
        options = {"env": self.environment(), "stdin": subprocess.DEVNULL, **options}
        if "input" in options:
            del options["stdin"]
        line = [*options.pop("wrap", ()), sys.executable, "-m", "opsq", *words]
        done = subprocess.run(line, cwd=self.folder, capture_output=True, text=True, timeout=60, **options)
        assert "Traceback" not in done.stderr, done.stderr
        if code is not None:
            assert done.returncode == code, f"{words}: {done}\n{self.spawner.report()}"
        return done

    def json(self, *words: str, code: int | None = 0, **options: Any) -> Any:
        """A command's data."""
        return json.loads(self.opsq(*words, code=code, **options).stdout)

    def run(self, *words: str, code: int | None = 0, **options: Any) -> Any:
        """`opsq run host-batch --json` and its data."""
        return self.json("run", "host-batch", "--json", *words, code=code, **options)
