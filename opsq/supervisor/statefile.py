"""What a daemon leaves for its successor: the plan and where each program stands; written before a start."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opsq.runtime import pidfile
from opsq.runtime.process import boot_id
from opsq.runtime.statedir import StateDir
from opsq.supervisor.child import Child
from opsq.supervisor.plan import Plan


@dataclass(frozen=True, slots=True)
class Kept:
    """The content. `going_down`: everything is to stop; `retiring`: programs that are forgotten once they have."""

    plan: Plan = field(default_factory=Plan)
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    going_down: bool = False
    retiring: Sequence[str] = ()


def path_of(state: StateDir) -> Path:
    """Where it lies."""
    return state.run / "state.json"


class StateFile:
    """Writes the file. The plan's text is made once a plan, not for each change of a program's state."""

    def __init__(self, state: StateDir) -> None:
        self._path = path_of(state)
        self._plan: Plan | None = None
        self._plan_text = ""

    def write(self, kept: Kept) -> None:
        """Replace the file. It need not survive a power cut: then no process does either."""
        if kept.plan is not self._plan:
            self._plan, self._plan_text = kept.plan, json.dumps(kept.plan.to_data())
        stands = {"records": kept.records, "going_down": kept.going_down, "retiring": list(kept.retiring)}
        rest = json.dumps({"boot": boot_id(), **stands})
        fresh = self._path.with_name("state.json.new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"{self._plan_text}\n{rest}\n")
        fresh.replace(self._path)


def read(state: StateDir) -> Kept | None:
    """What was kept in this boot; None when there is nothing that can be used."""
    try:
        first, second = path_of(state).read_text().splitlines()
        plan, rest = Plan.from_data(json.loads(first)), json.loads(second)
        if rest["boot"] != boot_id():
            return None
        return Kept(plan, rest["records"], rest["going_down"], rest.get("retiring", ()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove(state: StateDir) -> None:
    """Nothing runs any more."""
    path_of(state).unlink(missing_ok=True)


def fresh(plan: Plan, names: Sequence[str]) -> Kept:
    """The beginning of a plan: these programs (or all that start by themselves) and what they need are to run."""
    wanted = plan.needed_by(names or [program.name for program in plan.programs.values() if program.autostart])
    return Kept(plan, {name: Child.first_record(name in wanted) for name in plan.programs})


def anything_left(state: StateDir) -> bool:
    """Whether a program that some keeper started still runs."""
    return any(pidfile.holder(path) is not None for path in state.run.glob("*.pid"))
