"""What the keeper is told of a program: how to execute it, where its output goes, what it finds in its environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from opsq.runtime.logfile import next_number
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
    for name, path in ((program.name, program.stdout_logfile), (f"{program.name}.stderr", program.stderr_logfile)):
        _show_in_logs(state, name, None if path == "auto" else path)
    owner = {} if who.uid is None else {"uid": who.uid}
    return {
        "id": program.name,
        "argv": program.command,
        "cwd": program.directory,
        "env": environment(state, program),
        "uid": who.uid,
        "gid": who.gid,
        "groups": who.groups,
        "umask": program.umask,
        **{stream: {**log, **owner} for stream, log in _logs(state, program).items()},
        "pidfile": str(pidfile_of(state, program.name)),
    }


def _show_in_logs(state: StateDir, name: str, path: str | None) -> None:
    """A log file that lies elsewhere has a link beside the others; what was written here before counts as rotated."""
    here = state.log / f"{name}.log"
    if path is None:
        if here.is_symlink():
            here.unlink()
        return
    if here.is_symlink() and os.readlink(here) == path:
        return
    if here.exists() and not here.is_symlink():
        here.replace(next_number(here))
    here.unlink(missing_ok=True)
    here.symlink_to(path)


def adopt(state: StateDir, program: Program, process: ProcessId) -> dict[str, Any]:
    """The order to watch what an earlier keeper started."""
    return {
        "id": program.name,
        "pid": process.pid,
        "start": process.start_ticks,
        **_logs(state, program),
        "pidfile": str(pidfile_of(state, program.name)),
    }


def environment(state: StateDir, program: Program) -> dict[str, str | None]:
    """What is added to the keeper's environment; None takes away."""
    return {
        **dict.fromkeys(_NOT_FOR_PROGRAMS),
        "OPSQ_STATE_DIR": str(state.of_user(run_as(program.user).uid)),
        **program.environment,
        units.MARK: units.mark_of(program.name, state.key),
        "NOTIFY_SOCKET": str(state.notify_socket),
    }


def pidfile_of(state: StateDir, name: str) -> Path:
    """A program's pidfile."""
    return state.run / (f"{name}.pid" if name not in _OUR_PIDFILES else f"{name}.program.pid")


#: Processes of the supervisor's own whose pidfiles lie in the same folder.
_OUR_PIDFILES = ("keeper", "scribe", "daemon", "output")


def fifo_of(state: StateDir, name: str) -> Path:
    """The pipe that a program writes to."""
    return state.run / f"{name}.fifo"


def _logs(state: StateDir, program: Program) -> dict[str, dict[str, object]]:
    """Where the program's standard output goes, and its standard error if that has a pipe of its own."""
    most, backups = program.log_max_bytes, program.log_backups
    made = {"log": launch.log_order(state, program.name, most, backups, program.stdout_logfile)}
    if program.stderr_logfile is not None:
        most = most if program.stderr_log_max_bytes is None else program.stderr_log_max_bytes
        backups = backups if program.stderr_log_backups is None else program.stderr_log_backups
        named = None if program.stderr_logfile == "auto" else program.stderr_logfile
        made["errors"] = launch.log_order(state, f"{program.name}.stderr", most, backups, named)
    return made
