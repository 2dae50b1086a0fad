"""How a keeper begins: detached, or by becoming it; and how long one waits for the daemon that it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from opsq.exceptions import SupervisorError
from opsq.runtime import pidfile
from opsq.runtime.spawn import become, detach
from opsq.runtime.statedir import StateDir
from opsq.supervisor.units import MARK

_HERE = Path(__file__).parent
OWN_LOG = "opsq"
_OWN_LOG_BYTES, _OWN_LOG_BACKUPS = 10_000_000, 3


def keeper_pidfile(state: StateDir) -> Path:
    """The keeper's pidfile, which is its lock as well."""
    return state.run / "keeper.pid"


def log_order(state: StateDir, name: str, max_bytes: int, backups: int, path: str | None = None) -> dict[str, object]:
    """What keeper and scribe are told of a program's output. `path`: the file that the user has named for it."""
    return {
        "fifo": str(state.run / f"{name}.fifo"),
        "path": path or str(state.log / f"{name}.log"),
        "max_bytes": max_bytes,
        "backups": backups,
        "mode": 0o644 if path else 0o600,
    }


def start_keeper(state: StateDir) -> bool:
    """Leave a keeper behind; False when one runs already."""
    lock = pidfile.lock(keeper_pidfile(state))
    if lock is None:
        return False
    try:
        detach(_command(state, lock, None), _environment(), state.log / f"{OWN_LOG}.log", keep_open=(lock,))
    finally:
        os.close(lock)
    return True


def wait_for_keeper(state: StateDir, timeout_s: float = 10.0) -> None:
    """Wait until a keeper that was just started has said who it is. Raises SupervisorError."""
    limit = time.monotonic() + timeout_s
    while pidfile.holder(keeper_pidfile(state)) is None:
        if time.monotonic() > limit:
            raise SupervisorError(
                "the supervisor does not start", why=last_words(state), hint=f"look into {state.log / OWN_LOG}.log"
            )
        time.sleep(0.005)


def become_keeper(state: StateDir, output: Sequence[str]) -> NoReturn:
    """Go on as the keeper, with a program that shows all logs on what is our standard output."""
    lock = pidfile.lock(keeper_pidfile(state))
    if lock is None:
        raise SupervisorError("opsq is already up", why=f"a supervisor runs in {state.root}", hint="opsq down")
    become(_command(state, lock, output), _environment(), keep_open=(lock,))


def start_reload(state: StateDir, origin: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """Have the plan made anew, as `opsq reload` does: a process of its own, because it may import the app."""
    command = [sys.executable, "-P", "-m", "opsq", "--state-dir", str(state.root), "--quiet", "reload"]
    return subprocess.Popen(command, cwd=origin.get("here"), stdin=subprocess.DEVNULL, stdout=sys.stderr)


def _command(state: StateDir, lock: int, output: Sequence[str] | None) -> list[str]:
    isolated = [sys.executable, "-I", "-S"]
    settings = {
        "run": str(state.run),
        "socket": str(state.keeper_socket),
        "pidfile": str(keeper_pidfile(state)),
        "lock": lock,
        "log": log_order(state, OWN_LOG, _OWN_LOG_BYTES, _OWN_LOG_BACKUPS),
        "scribe": [*isolated, str(_HERE / "scribe.py")],
        # -P: a module of the project in the current directory must not take the place of one of Python's.
        "daemon": [sys.executable, "-P", "-m", "opsq.supervisor", str(state.root)],
        "output": list(output) if output else None,
    }
    return [*isolated, str(_HERE / "keeper.py"), json.dumps(settings)]


def _environment() -> dict[str, str]:
    """Ours, without the mark of a program that may have started us: what is left behind is no part of it."""
    return {name: value for name, value in os.environ.items() if name != MARK}


def last_words(state: StateDir) -> str:
    """The last line of the supervisor's own log, for an error."""
    try:
        lines = (state.log / f"{OWN_LOG}.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
