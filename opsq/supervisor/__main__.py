"""`python -m opsq.supervisor STATE_DIR`: the daemon. The keeper starts it; nobody else needs to."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from opsq.runtime import pidfile
from opsq.runtime.process import myself
from opsq.runtime.statedir import StateDir
from opsq.supervisor.handlers import Handlers
from opsq.supervisor.server import Server
from opsq.supervisor.supervisor import Supervisor, say

_LOCK_PATIENCE_S = 2.0


def main() -> None:
    """Take over, serve, and end when everything is down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    state = StateDir(Path(sys.argv[1]))
    _only_one(state)
    supervisor = Supervisor(state)
    supervisor.begin()
    server = Server(state.control_socket, supervisor.selector, Handlers(supervisor).handle)
    supervisor.after_turn = server.answer_waiting
    supervisor.run()
    server.close()


def _only_one(state: StateDir) -> int:
    """Hold the daemon's lock, which one that just died has given back, and say who we are."""
    limit = time.monotonic() + _LOCK_PATIENCE_S
    while (lock := pidfile.lock(state.run / "daemon.lock")) is None:
        if time.monotonic() > limit:
            say("another daemon runs already")
            sys.exit(1)
        time.sleep(0.01)
    pidfile.write(state.run / "daemon.pid", myself())
    return lock


if __name__ == "__main__":
    main()
