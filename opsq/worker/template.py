"""The template: a single-threaded process that has imported the app, and forks the children.

Only it can wait for them, so it reports their ends. It knows two commands: fork a child for a slot, and end.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import Any

from opsq.runtime.parent import die_with_parent
from opsq.runtime.process import start_ticks
from opsq.worker import child

logger = logging.getLogger("opsq.worker")


def serve(link: socket.socket, become_child: Callable[[int], None], parent: int) -> None:
    """Obey the parent until it says end, or is gone; never returns."""
    die_with_parent(parent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    slots_by_pid: dict[int, int] = {}
    poller = select.poll()
    poller.register(link, select.POLLIN)
    poller.register(reader, select.POLLIN)
    while True:
        for descriptor, _event in poller.poll():
            if descriptor == reader:
                os.read(reader, 4096)
                continue
            order = _receive(link)
            if order is None:
                child.leave(0)
            elif "fork" in order:
                _fork(link, order["fork"], become_child, slots_by_pid)
        _report_ends(link, slots_by_pid)


def _receive(link: socket.socket) -> dict[str, Any] | None:
    try:
        data = link.recv(65_536)
    except OSError:
        return None
    order: dict[str, Any] = json.loads(data) if data else {"end": True}
    return None if "end" in order else order


def _fork(link: socket.socket, index: int, become_child: Callable[[int], None], slots_by_pid: dict[int, int]) -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            link.close()
            become_child(index)
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:
            logger.exception("a child failed")
        finally:
            child.leave(status)
    slots_by_pid[pid] = index
    _say(link, {"born": index, "pid": pid, "ticks": start_ticks(pid) or 0})


def _report_ends(link: socket.socket, slots_by_pid: dict[int, int]) -> None:
    while slots_by_pid:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        index = slots_by_pid.pop(pid, None)
        if index is not None:
            _say(link, {"died": index, "pid": pid, "status": status})


def _say(link: socket.socket, message: dict[str, Any]) -> None:
    try:
        link.send(json.dumps(message).encode())
    except OSError:
        child.leave(0)
