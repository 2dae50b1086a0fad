"""Readiness by systemd's protocol, both sides: a process says that it is ready, its supervisor hears it.

The sender's side is for every process of ours: under `opsq up`, under systemd, or under neither (then it does nothing).
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: The variable by which a supervisor says how long after its stop signal it kills (seconds).
STOPWAITSECS = "OPSQ_STOPWAITSECS"
_RELOADED, _NOT_RELOADED = "reloaded", "not reloaded: "
_CREDENTIALS = struct.Struct("iII")


def ready(status: str = "", environ: Mapping[str, str] = os.environ) -> bool:
    """Say "ready"; True when somebody was told."""
    return notify("READY=1" + (f"\nSTATUS={status}" if status else ""), environ)


def reloaded(trouble: str = "", environ: Mapping[str, str] = os.environ) -> bool:
    """Say that code and settings were read again, or why they could not; True when somebody was told."""
    return notify("STATUS=" + (_NOT_RELOADED + " ".join(trouble.split()) if trouble else _RELOADED), environ)


def reload_trouble(status: str) -> str | None:
    """What a status says of a reload: "" = all is well, else why not; None: it says nothing of one."""
    if status == _RELOADED:
        return ""
    return status.removeprefix(_NOT_RELOADED) if status.startswith(_NOT_RELOADED) else None


def stopping(environ: Mapping[str, str] = os.environ) -> bool:
    """Say "stopping"; True when somebody was told."""
    return notify("STOPPING=1", environ)


def notify(text: str, environ: Mapping[str, str] = os.environ, patience_s: float = 5.0) -> bool:
    """Send lines of the protocol to `NOTIFY_SOCKET`; a supervisor that is just being replaced is waited for."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    deadline = time.monotonic() + patience_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        while True:
            try:
                sender.sendto(text.encode(), address)
                return True
            except (ConnectionRefusedError, FileNotFoundError):
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.02)
            except OSError:
                return False


@dataclass(frozen=True, slots=True)
class Notice:
    """What a process said of itself."""

    pid: int
    values: Mapping[str, str]


class Listener:
    """The supervisor's side: a datagram socket on which the kernel vouches for the sender's pid."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(path))
        # Programs may run as another user; the directory around it keeps strangers out.
        path.chmod(0o666)

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def receive(self) -> list[Notice]:
        """All that has arrived."""
        notices: list[Notice] = []
        while True:
            try:
                data, ancillary, _flags, _address = self._socket.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
            except BlockingIOError:
                return notices
            for _level, kind, content in ancillary:
                if kind == socket.SCM_CREDENTIALS:
                    pid, _uid, _gid = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])
                    lines = data.decode(errors="replace").splitlines()
                    notices.append(Notice(pid, dict(line.split("=", 1) for line in lines if "=" in line)))

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()
