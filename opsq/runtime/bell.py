"""What ends a wait from elsewhere: a pipe that a thread, a signal or a child writes into, where there is no such pipe a
pair of sockets.
"""

from __future__ import annotations

import os
import socket


class Bell:
    """`ring` from any thread; who waits watches `reader` (a descriptor) and then calls `read`.

    `writer` may be given to `signal.set_wakeup_fd` and to children.
    """

    def __init__(self) -> None:
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        if hasattr(os, "pipe2"):
            self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            return
        ours, theirs = self._sockets = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.reader, self.writer = ours.fileno(), theirs.fileno()

    def ring(self, word: bytes = b"\0") -> None:
        """End the wait, or the next one."""
        try:
            if self._sockets is None:
                os.write(self.writer, word)
            else:
                self._sockets[1].send(word)
        except OSError:  # it rings enough, or nobody waits any more
            pass

    def read(self) -> bytes:
        """What was rung since the last time."""
        try:
            return os.read(self.reader, 4096) if self._sockets is None else self._sockets[0].recv(4096)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Nobody waits any more; who rings now is not heard."""
        reader, writer, self.reader, self.writer = self.reader, self.writer, -1, -1
        if self._sockets is not None:
            for each in self._sockets:
                each.close()
        elif reader >= 0:
            os.close(reader)
            os.close(writer)
