"""The wire between a worker and Redis: it can lose answers, and fall silent without closing anything."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

from support.proxy import CutAfterForward


class Wire(CutAfterForward):
    """Forwards turns and cuts their answers off as often as `limit` says; while silent it holds everything back."""

    def __init__(self, server: Path) -> None:
        """`server`: its Unix socket."""
        self._speaks, self._server = threading.Event(), server
        self._speaks.set()
        super().__init__(0, limit=0, every=2)

    def lose_answers(self, count: int) -> None:
        """The answers to the next turns are lost, and their connections."""
        self.limit = self.strikes + count

    def fall_silent(self) -> None:
        """Nothing passes, and nobody is told."""
        self._speaks.clear()

    def speak(self) -> None:
        """All that was held back passes now, late."""
        self._speaks.set()

    def seen(self, data: bytes) -> None:  # noqa: ARG002
        """Each request waits while the wire is silent."""
        self._speaks.wait()

    def connect(self, client: socket.socket) -> socket.socket | None:
        """A connection to the server; who cannot be served is closed."""
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with suppress(OSError):
            server.connect(str(self._server))
            return server
        server.close()
        client.close()
        return None
