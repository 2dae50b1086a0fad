"""The template: a single-threaded process that has imported the app, and forks the children.

Only it can wait for them, so it reports their ends. It knows three commands: fork a child for a slot, fork a process
that tells what is in a file (`epilogue`), and end.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from opsq import signals
from opsq.runtime.parent import die_with_parent
from opsq.runtime.process import start_ticks
from opsq.worker import child

logger = logging.getLogger("opsq.worker")


#: How long the template waits at its end for those that tell something (seconds).
PATIENCE_S = 5.0


def serve(
    link: socket.socket, become_child: Callable[[int], None], tell_epilogue: Callable[[str], None], parent: int
) -> None:
    """Obey the parent until it says end, or is gone; never returns."""
    die_with_parent(parent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    slots_by_pid: dict[int, int] = {}
    tellers: set[int] = set()
    poller = select.poll()
    poller.register(link, select.POLLIN)
    poller.register(reader, select.POLLIN)
    while True:
        for descriptor, _event in poller.poll():
            if descriptor == reader:
                os.read(reader, 4096)
                continue
            order = receive(link)
            if order is None:
                _wait_for(tellers)
                child.leave(0)
            elif "fork" in order:
                index = order["fork"]
                signals.worker_before_create_process.send(None)
                pid = _fork(link, partial(become_child, index))
                slots_by_pid[pid] = index
                say(link, {"born": index, "pid": pid, "ticks": start_ticks(pid) or 0})
            elif "tell" in order:
                _import_for_tellers()
                tellers.add(_fork(link, partial(tell_epilogue, order["tell"])))
        _report_ends(link, slots_by_pid, tellers)


def receive(link: socket.socket) -> dict[str, Any] | None:
    """The parent's next order; None = end, or the parent is gone."""
    try:
        data = link.recv(65_536)
    except OSError:
        return None
    order: dict[str, Any] = json.loads(data) if data else {"end": True}
    return None if "end" in order else order


def _fork(link: socket.socket, become: Callable[[], None]) -> int:
    """Fork a process that becomes something, and ends, at the latest with this one; its pid."""
    here = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            die_with_parent(here)  # first of all: a child by exec takes its time to import the app
            link.close()
            become()
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:
            logger.exception("a child failed")
        finally:
            child.leave(status)
    return pid


def _import_for_tellers() -> None:
    """Once, before the first of them: else each does it, and a hundred of them keep a machine busy with that."""
    importlib.import_module("opsq.datastore.redis_py")


def _report_ends(link: socket.socket, slots_by_pid: dict[int, int], tellers: set[int]) -> None:
    while slots_by_pid or tellers:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        tellers.discard(pid)
        index = slots_by_pid.pop(pid, None)
        if index is not None:
            say(link, {"died": index, "pid": pid, "status": status})


def _wait_for(tellers: set[int]) -> None:
    """Let those end that tell something, for some seconds."""
    until = time.monotonic() + PATIENCE_S
    while tellers and time.monotonic() < until:
        tellers = {pid for pid in tellers if os.waitpid(pid, os.WNOHANG)[0] == 0}
        time.sleep(0.01)


def say(link: socket.socket, message: dict[str, Any]) -> None:
    """Report something to the parent; without a parent this process ends."""
    try:
        link.send(json.dumps(message).encode())
    except OSError:
        child.leave(0)
