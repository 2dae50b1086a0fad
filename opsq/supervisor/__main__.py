"""`python -m opsq.supervisor STATE_DIR`: the daemon. The keeper starts it; nobody else needs to."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from opsq.runtime.statedir import StateDir
from opsq.supervisor.handlers import Handlers
from opsq.supervisor.server import Server
from opsq.supervisor.supervisor import Supervisor, only_one


def main() -> None:
    """Take over, serve, and end when everything is down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    state = StateDir(Path(sys.argv[1]))
    only_one(state)
    supervisor = Supervisor(state)
    supervisor.begin()
    server = Server(state.control_socket, supervisor.selector, Handlers(supervisor).handle)
    supervisor.after_turn = server.answer_waiting
    supervisor.run()
    server.close()


if __name__ == "__main__":
    main()
