"""A worker in one process: it runs its tasks in threads of its own, a thread more renews its leases.

For tests, and for systems that cannot fork. It knows the pools solo and threads. It reloads nothing, and a task that
clings to the interpreter past its hard limit holds up its end.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from opsq import signals
from opsq.protocol.envelope import Envelope
from opsq.runtime.logs import Buffered
from opsq.worker import chords, mingle, overrides, remote, slots
from opsq.worker.broadcasts import Broadcasts
from opsq.worker.child import Means, Work, work_of
from opsq.worker.chords import Conductor
from opsq.worker.commanded import AtOnce, OneChild
from opsq.worker.herald import Herald
from opsq.worker.leases import Leases
from opsq.worker.limited import Limited
from opsq.worker.limits import Policy
from opsq.worker.lines import Lines
from opsq.worker.many import ManyLine
from opsq.worker.panel import State
from opsq.worker.post import Post
from opsq.worker.pulse import Pulse
from opsq.worker.record import Plan, Record
from opsq.worker.rescue import Rescue
from opsq.worker.settle import Settler
from opsq.worker.slots import Facts, Slots
from opsq.worker.successor import Judge

logger = logging.getLogger("opsq.worker")

#: Its pools, and the one that runs them: one process that runs several tasks at once.
POOLS = ("solo", "threads")
_RUN_BY = "threads"


class Alone:
    """One worker: named first, so that signals can tell of it, then equipped as any other; `run` works until `stop`."""

    def __init__(self, app: Any, hostname: str) -> None:
        """`hostname`: the node name."""
        self.app, self.hostname = app, hostname
        self._stopping = threading.Event()
        self._work: Work | None = None

    def equip(
        self, plan: Plan, judge: Judge, settler: Settler, accept: frozenset[str], buffer: Buffered | None
    ) -> None:
        """All that it needs to run. `accept`: content types; `buffer`: of its log, if it is ours."""
        self.plan = replace(plan, setup=replace(plan.setup, pool=_RUN_BY))
        self._judge, self._settler, self._accept, self._buffer = judge, settler, accept, buffer

    def run(self, on_ready: Callable[[], None]) -> int:
        """Start, work until stopped, stop; `on_ready` is called when it takes messages. Its exit code."""
        setup = self.plan.setup
        folder = Path(tempfile.mkdtemp(prefix="opsq-worker-"))
        try:
            self._table = Slots.private(Facts(setup.worker_id, setup.queues, "", [os.getpid()]))
            self._table.path = folder / "own.slots"
            self._table.slot(0).words[slots.PID] = os.getpid()
            self._record = Record(self.plan, self._table)
            signals.worker_init.send(self)
            self._leases = self._make_leases(folder)
            watch = self._chords_watch(folder) if self.app.backend.keeps_results else None
            if watch is not None:
                watch.start()
            self._leases.start()
            self._registered()
            self._serve(on_ready)
            if watch is not None:
                watch.end()
            self._leases.submit(self._leases.sign_off)
            self._leases.end()
            self._leases.join(timeout=30.0)
            self._ear.end()
            signals.worker_shutdown.send(self)
            return 0
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def stop(self) -> None:
        """End when what runs has ended; from any thread, or a signal handler."""
        self._stopping.set()
        if self._work is not None:
            self._table.words[slots.STOPPING] = 1
            self._table.words[slots.GENERATION] += 1
            self._wake()

    # -- what remote commands ask for ---------------------------------------------------------------------------------

    def ask_to_stop(self, _how: str) -> None:
        """Stop when what runs has ended, however it is asked: nobody could settle what is left."""
        self.stop()

    def set_time_limits(self, task: str, soft_s: float | None, hard_s: float | None) -> None:
        """Limits of all later runs of a task (seconds, None = none), until the worker ends."""
        overrides.write(self._table, task, soft_s, hard_s)
        self._child.announce()

    # -- running ------------------------------------------------------------------------------------------------------

    def _take_signals(self) -> None:
        """INT and TERM stop it when what runs has ended; a second one ends the process at once."""

        def on_signal(number: int, _frame: FrameType | None) -> None:
            signal.signal(number, signal.SIG_DFL)
            logger.warning("worker: Warm shutdown (MainProcess)")
            told = {"sig": signal.Signals(number).name, "how": "Warm", "exitcode": 0}
            signals.worker_shutting_down.send(self.hostname, **told)
            self.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, on_signal)
        line = self._work.line if self._work is not None else None
        if isinstance(line, ManyLine):
            line.alarm.take_signals()

    def _wake(self) -> None:
        line = self._work.line if self._work is not None else None
        if isinstance(line, ManyLine):
            line.alarm.call()

    def _serve(self, on_ready: Callable[[], None]) -> None:
        setup = self.plan.setup
        signals.worker_process_init.send(setup.node)
        conductor = Conductor(self.app, self._settler) if self.app.backend.keeps_results else None
        if conductor is not None:
            self._settler.on_complete = conductor.complete
        told = False

        def on_work() -> None:
            nonlocal told
            if not told:
                told = True
                signals.worker_ready.send(self)
                on_ready()

        self._work = work_of(self._means(on_work), 0, Lines(self._buffer, None))
        if threading.current_thread() is threading.main_thread():
            self._take_signals()
        if self._stopping.is_set():
            self.stop()
        try:
            self._work.run()
            if conductor is not None:
                conductor.finish()
        finally:
            signals.worker_process_shutdown.send(setup.node, pid=os.getpid(), exitcode=0)

    def _means(self, on_work: Callable[[], None]) -> Means:
        return Means(
            setup=self.plan.setup,
            table=self._table,
            app=self.app,
            settler=self._settler,
            accept=self._accept,
            buffer=self._buffer,
            call_parent=on_work,
        )

    # -- the thread at the broker -----------------------------------------------------------------------------------

    def _make_leases(self, folder: Path) -> Leases:
        setup = self.plan.setup
        herald = Herald(self._table, setup.node, setup.news.exchange)
        pulse = Pulse(setup.news, setup.node, self._table, herald, self._record.count)
        pulse.on_beat = self._tell_heartbeat
        names = setup.key_prefix, setup.priorities
        post = Post(setup.url, setup.worker_id, setup.queues, setup.lease_s, *names, folder)

        def on_loss(message: Envelope, error: BaseException) -> None:
            if herald.look():
                herald.lost(message, error)

        self._judge.on_loss = on_loss
        rescue = Rescue(post, self._judge, self.plan.leftovers)
        policy = Policy(setup.limits, setup.key_prefix, setup.priorities, self.app.tasks)
        parts = rescue, pulse, Limited(post, policy), Broadcasts(setup.news.channels)
        leases = Leases(post, self._table, *parts, self._record.describe, self._on_strays)
        self._child = OneChild(self._table, self._wake)
        state = State(self, leases, pulse, self._record, self._child, AtOnce(), self._accept)
        self._ear = remote.Ear(state, self._accept, self.app.conf.task_serializer)
        leases.on_command = self._ear.heard
        if setup.news.mailbox and setup.news.mingles:
            leases.submit(lambda: mingle.begin(state, setup.news.mailbox))
        return leases

    def _tell_heartbeat(self) -> None:
        signals.heartbeat_sent.send(self)

    def _on_strays(self, _slots: set[int]) -> None:
        """It holds messages that it does not know: a turn shows them."""
        self._wake()

    def _registered(self) -> None:
        """Wait until its consumer is registered: a turn is answered to those only."""
        done = threading.Event()
        self._leases.register([0], self.plan.setup.queues, done.set)
        while not done.wait(0.1) and not self._stopping.is_set():
            pass

    def _chords_watch(self, folder: Path) -> chords.Watch:
        """Looks after chords that nobody completes."""

        def send(path: Path) -> None:
            chords.dispatch_file(path, self.app, self._settler)

        return chords.Watch(self.app.backend.chords, folder, send)
