"""Keep the children of a worker: the templates that fork them, who lives, who has ended and how.

There is one template; more while children are being replaced after SIGHUP: the newcomer, until it has said that it is
ready, and old ones that only wait for their own children.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opsq.runtime import process
from opsq.runtime.parent import TEMPLATE_LINK
from opsq.runtime.process import ProcessId
from opsq.worker import slots, template
from opsq.worker.slots import Slot, Slots

logger = logging.getLogger("opsq.worker")

#: How long a newcomer that is not wanted any more may take to end after SIGKILL (seconds).
KILL_S = 10.0


@dataclass(slots=True, eq=False)
class Template:
    """One template process and the link to it.

    `ready`: it may fork; `told`: why it could not become ready; `newest`: it was the one that forks when it ended.
    """

    link: socket.socket
    pid: int
    ready: bool = True
    told: str = ""
    newest: bool = False


@dataclass(slots=True)
class Child:
    """One child: its slot, its template, who it is, and why it was killed, if the parent did it.

    `limit`: number of the message and its hard limit (seconds). `terminated`: number and signal, if it was revoked.
    """

    slot: Slot
    template: Template
    process: ProcessId | None = None
    born_at: float = field(default_factory=time.monotonic)
    killed: str = ""
    limit: tuple[int, float] | None = None
    terminated: tuple[int, int] | None = None


class Children:
    """The parent's side of the templates and of the children they fork."""

    def __init__(
        self,
        table: Slots,
        become_child: Callable[[int], None],
        tell_epilogue: Callable[[str], None],
        on_death: Callable[[Child, int | None], None],
        on_ready: Callable[[], None] = lambda: None,
    ):
        """What a forked process is to be: the child of a slot, or who tells what is in a file (`epilogue`).

        `on_death(child, wait status or None)` is called once for each child that has ended, `on_ready` when a template
        that was started by exec may fork from now on.
        """
        self.table = table
        self._become_child, self._tell_epilogue, self._on_death = become_child, tell_epilogue, on_death
        self._on_ready = on_ready
        self.alive: dict[int, Child] = {}
        self.templates: list[Template] = []

    # -- the templates ----------------------------------------------------------------------------------------------

    def fork_template(self) -> None:
        """At the start, while this process is single-threaded and holds no connection: fork it from here."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                self.table.let_go()
                template.serve(theirs, self._become_child, self._tell_epilogue, parent)
            finally:
                os._exit(1)
        theirs.close()
        self.templates.append(Template(ours, pid))

    def exec_template(self, facts: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """Later on: start one by exec, with today's code; it may fork once it has said that it is ready.

        `facts` and `descriptors` are what it needs from us. One that is not ready yet is given up.
        """
        self.end_newcomer()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, TEMPLATE_LINK: f"{theirs.fileno()}:{os.getpid()}"}
        started = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]], env=environment, pass_fds=[theirs.fileno(), *descriptors]
        )
        started.returncode = 0  # it is waited for by its pid, like a forked one
        theirs.close()
        made = Template(ours, started.pid, ready=False)
        _say(made, facts)
        self.templates.append(made)

    @property
    def newest(self) -> Template | None:
        """The template that forks."""
        return next((found for found in reversed(self.templates) if found.ready), None)

    @property
    def newcomer(self) -> Template | None:
        """The one that is not ready yet."""
        return next((found for found in self.templates if not found.ready), None)

    def end_newcomer(self) -> None:
        """Give up the one that is not ready yet."""
        found = self.newcomer
        if found is not None:
            os.kill(found.pid, signal.SIGKILL)
            os.waitpid(found.pid, 0)
            self._drop(found)

    def reap_templates(self) -> list[Template]:
        """The templates that have ended by themselves. The kernel ends their children with them: those died too."""
        ended = [found for found in self.templates if _has_ended(found.pid)]
        for found in ended:
            self.read(found)
            found.newest = found is self.newest
            self._drop(found)
        return ended

    def _drop(self, found: Template) -> None:
        self.templates.remove(found)
        found.link.close()
        for child in [child for child in self.alive.values() if child.template is found]:
            if child.process is not None:
                process.wait_end(child.process, KILL_S)
            self._died(child, None)

    def end_idle_templates(self, all_of_them: bool = False) -> None:
        """End the old templates that have no children left; all of them when nobody is to be forked any more."""
        if all_of_them:
            self.end_newcomer()
        for found in list(self.templates):
            wanted = not found.ready or found is self.newest or any(c.template is found for c in self.alive.values())
            if wanted and not all_of_them:
                continue
            _say(found, {"end": True})
            os.waitpid(found.pid, 0)
            self.templates.remove(found)
            found.link.close()

    # -- children ---------------------------------------------------------------------------------------------------

    def fork(self, slot: Slot) -> None:
        """Have the newest template fork a child for a slot (whose consumer is registered already)."""
        newest = self.newest
        assert newest is not None
        slot.words[slots.BIRTHS] += 1
        self.alive[slot.index] = Child(slot, newest)
        _say(newest, {"fork": slot.index})

    def tell(self, path: Path) -> None:
        """Have the newest template fork a process that tells what is in a file."""
        newest = self.newest
        if newest is not None:
            _say(newest, {"tell": str(path)})

    def read(self, found: Template) -> None:
        """What a template has reported: births and deaths. That it has ended is found by `reap_templates`."""
        while True:
            try:
                data = found.link.recv(65_536, socket.MSG_DONTWAIT)
            except OSError:
                return
            if not data:
                return
            self._reported(found, json.loads(data))

    def _reported(self, found: Template, message: dict[str, Any]) -> None:
        if "ready" in message:
            found.ready = True
            self._on_ready()
        elif "failed" in message:
            found.told = message["failed"]
        elif "born" in message:
            child = self.alive.get(message["born"])
            if child is not None:
                child.process = ProcessId(message["pid"], message["ticks"], process.boot_id())
        elif message["died"] in self.alive:
            self._died(self.alive[message["died"]], message["status"])

    def _died(self, child: Child, status: int | None) -> None:
        self.alive.pop(child.slot.index, None)
        self._on_death(child, status)

    # -- telling them something -------------------------------------------------------------------------------------

    def announce(self) -> None:
        """The page, or a slot's order, has changed."""
        self.table.words[slots.GENERATION] += 1
        self.poke()

    def poke(self) -> bool:
        """SIGUSR1 to every child that has not yet seen the newest page; true when there is such a one."""
        generation = self.table.words[slots.GENERATION]
        unseen = [child for child in self.alive.values() if child.slot.words[slots.SEEN] != generation]
        for child in unseen:
            self.signal(child, signal.SIGUSR1)
        return bool(unseen)

    @staticmethod
    def signal(child: Child, number: int) -> None:
        """Signal exactly this child; SIGUSR1 only once it is ready to take it."""
        if child.process is None or (number == signal.SIGUSR1 and child.slot.words[slots.STATE] < slots.IDLE):
            return
        process.send_signal(child.process, number)

    def kill_running(self, child: Child, number: int, limit_s: float) -> None:
        """SIGKILL a child whose task has run into its hard limit, if it still runs this very message."""
        if self._kill_if_it_runs(child, number, "hard time limit"):
            child.limit = number, limit_s

    def terminate(self, index: int, number: int, signum: int) -> None:
        """End a task that was revoked, if the child of the slot still runs this very message.

        SIGUSR1 raises SoftTimeLimitExceeded in it, as in Celery; any other signal is the end of the child.
        """
        child = self.alive.get(index)
        if child is None or child.killed:
            return
        if signum == signal.SIGUSR1:
            child.slot.words[slots.SOFT_NUMBER] = number
            self.signal(child, signal.SIGUSR1)
        elif self._kill_if_it_runs(child, number, "its task was revoked"):
            child.terminated = number, signum

    def order_end(self, index: int, number: int, signum: int) -> bool:
        """The same for a child that runs many at once: it does it itself. False when it has an earlier order yet."""
        child = self.alive.get(index)
        if child is not None:
            words = child.slot.words
            if words[slots.END_NUMBER]:
                return False
            words[slots.END_SIGNAL], words[slots.END_NUMBER] = signum, number
            self.announce()
        return True

    def _kill_if_it_runs(self, child: Child, number: int, why: str) -> bool:
        """Stop it, look, then kill it or let it go on: nothing but this message is ever hit."""
        self.signal(child, signal.SIGSTOP)
        deadline = time.monotonic() + 0.5
        while not _is_stopped(child.process) and time.monotonic() < deadline:
            time.sleep(0.0005)
        still = bool(child.slot.words[slots.CURRENT] == number)
        if still:
            child.killed = why
        self.signal(child, signal.SIGKILL if still else signal.SIGCONT)
        return still

    def kill_all(self) -> None:
        """SIGKILL every child."""
        for child in self.alive.values():
            child.killed = child.killed or "the worker was stopped at once"
            self.signal(child, signal.SIGKILL)


def _say(found: Template, order: Mapping[str, Any]) -> None:
    try:
        found.link.send(json.dumps(order).encode())
    except OSError:
        logger.debug("a template has gone")


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def _is_stopped(who: ProcessId | None) -> bool:
    """Whether a process is stopped, or has ended."""
    if who is None:
        return True
    try:
        with open(f"/proc/{who.pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t", b"Z", b"X")
    except OSError:
        return True
