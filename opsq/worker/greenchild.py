"""A child of a green pool: started by exec, since a process must be patched before it imports the app.

Only this child is patched: the parent and its template stay as they are. It is told what it is by a file in memory.
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from opsq.concurrency.base import POOLS
from opsq.worker import child
from opsq.worker.child import Setup
from opsq.worker.slots import Slots

#: Tells a process that it is such a child: the descriptor of the file that says more.
GREEN_CHILD = "OPSQ_GREEN_CHILD"


def execute(setup: Setup, index: int, table: Path, writer: int) -> NoReturn:
    """In a forked process: become the child of a slot. `writer`: the descriptor that wakes the parent."""
    told = os.memfd_create("opsq-green-child", 0)
    os.write(told, pickle.dumps((setup, index, table, writer)))
    os.lseek(told, 0, os.SEEK_SET)
    os.set_inheritable(writer, True)
    words = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    flags = words[:-2] if words[-2:-1] == ["-m"] else words[:-1]  # what is left of Python's own options
    library = POOLS[setup.pool].library
    argv = [sys.executable, *flags, "-m", "opsq.concurrency.patched", library, *sys.argv[1:]]
    os.execve(sys.executable, argv, {**os.environ, GREEN_CHILD: str(told)})


class Told(NamedTuple):
    """What such a child is told."""

    setup: Setup
    slot: int
    table: Path
    writer: int


def told() -> Told | None:
    """What this process was told, if it is to be such a child."""
    descriptor = os.environ.pop(GREEN_CHILD, "")
    if not descriptor:
        return None
    with open(int(descriptor), "rb") as file:
        return Told(*pickle.load(file))


def serve(worker: Any, what: Told) -> None:
    """Be this child until its end; never returns. `worker`: a Worker, equipped."""
    status = 1
    try:
        worker.serve_as_child(what.setup, what.slot, Slots.attach(what.table), what.writer)
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    finally:
        child.leave(status)
