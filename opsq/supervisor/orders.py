"""What the keeper is told of a program: how to execute it, where its output goes, what it finds in its environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opsq.runtime.process import ProcessId
from opsq.runtime.spawn import run_as
from opsq.runtime.statedir import StateDir
from opsq.supervisor import launch, units
from opsq.supervisor.plan import Program

#: What a service manager tells its own child is not meant for our programs.
_NOT_FOR_PROGRAMS = ("WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


def spawn(state: StateDir, program: Program) -> dict[str, Any]:
    """The order to start it. Raises ImproperlyConfigured when its user cannot be had."""
    who = run_as(program.user)
    log = _log(state, program)
    if who.uid is not None:
        log["uid"] = who.uid
    return {
        "id": program.name,
        "argv": program.command,
        "cwd": program.directory,
        "env": environment(state, program),
        "uid": who.uid,
        "gid": who.gid,
        "groups": who.groups,
        "umask": program.umask,
        "log": log,
        "pidfile": str(pidfile_of(state, program.name)),
    }


def adopt(state: StateDir, program: Program, process: ProcessId) -> dict[str, Any]:
    """The order to watch what an earlier keeper started."""
    return {
        "id": program.name,
        "pid": process.pid,
        "start": process.start_ticks,
        "log": _log(state, program),
        "pidfile": str(pidfile_of(state, program.name)),
    }


def environment(state: StateDir, program: Program) -> dict[str, str | None]:
    """What is added to the keeper's environment; None takes away."""
    return {
        **dict.fromkeys(_NOT_FOR_PROGRAMS),
        "OPSQ_STATE_DIR": str(state.root),
        **program.environment,
        units.MARK: units.mark_of(program.name, state.key),
        "NOTIFY_SOCKET": str(state.notify_socket),
    }


def pidfile_of(state: StateDir, name: str) -> Path:
    """A program's pidfile."""
    return state.run / f"{name}.pid"


def fifo_of(state: StateDir, name: str) -> Path:
    """The pipe that a program writes to."""
    return state.run / f"{name}.fifo"


def _log(state: StateDir, program: Program) -> dict[str, object]:
    return launch.log_order(state, program.name, program.log_max_bytes, program.log_backups)
