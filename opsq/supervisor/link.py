"""The daemon's end of the connection to the keeper. What is said waits until `flush`: the plan is kept first."""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections import deque
from pathlib import Path
from typing import Any

Message = dict[str, Any]
_LARGEST = 1 << 18
_PAUSE_S = 0.005


class KeeperLink:
    """One connection; a new one is made when the keeper was replaced."""

    def __init__(self, path: Path) -> None:
        self._waiting: deque[bytes] = deque()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    @property
    def behind(self) -> bool:
        """Whether the keeper has not taken everything yet."""
        return bool(self._waiting)

    def say(self, order: str, **values: Any) -> None:
        """Have the keeper do something, after the next `flush`."""
        self._waiting.append(json.dumps({"order": order, **values}).encode())

    def flush(self) -> None:
        """Send what the keeper takes now."""
        while self._waiting:
            try:
                self._socket.send(self._waiting[0])
            except BlockingIOError:
                return
            except OSError:  # it has gone: `receive` will say so
                return
            self._waiting.popleft()

    def drain(self, timeout_s: float) -> None:
        """Send everything, waiting for a keeper that is behind; for last words."""
        limit = time.monotonic() + timeout_s
        self.flush()
        while self.behind and (left_s := limit - time.monotonic()) > 0:
            if not select.select([], [self._socket], [], left_s)[1]:
                return
            before = len(self._waiting)
            self.flush()
            if len(self._waiting) == before:  # room, but too little; or it has gone
                if self.receive() is None:
                    return
                time.sleep(_PAUSE_S)

    def receive(self) -> list[Message] | None:
        """What the keeper says; None when it has gone."""
        messages: list[Message] = []
        while True:
            try:
                data = self._socket.recv(_LARGEST)
            except BlockingIOError:
                return messages
            except OSError:
                data = b""
            if not data:
                return messages or None
            messages.append(json.loads(data))

    def wait(self, timeout_s: float) -> bool:
        """Wait until the keeper says something."""
        return bool(select.select([self._socket], [], [], timeout_s)[0])

    def keeper_pid(self) -> int:
        """The process at the other end."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid: int = struct.unpack("3i", credentials)[0]
        return pid

    def close(self) -> None:
        """End the connection."""
        self._socket.close()
