"""The parent of a worker: builds its parts from settings, keeps the children alive and within limits, stops in order.

It never waits for Redis itself (the lease thread does) and runs no task.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from opsq import signals
from opsq.protocol.envelope import Envelope
from opsq.runtime import notify
from opsq.runtime.logs import Buffered
from opsq.worker import child, epilogue, slots, successor, watchdog
from opsq.worker.calls import Calls
from opsq.worker.child import Means
from opsq.worker.children import Child, Children
from opsq.worker.herald import Herald
from opsq.worker.leases import Leases
from opsq.worker.panel import State
from opsq.worker.post import Post
from opsq.worker.pulse import Pulse
from opsq.worker.record import Plan, Record, how_it_ended
from opsq.worker.remote import Ear
from opsq.worker.rescue import Rescue
from opsq.worker.settle import Settler
from opsq.worker.slots import Facts, Slot, Slots
from opsq.worker.successor import Judge

logger = logging.getLogger("opsq.worker")

#: A second INT or TERM counts as one only after this time: Ctrl-C often comes twice (seconds).
SECOND_SIGNAL_S = 0.5
#: How often children that have not seen the newest page are told again (seconds).
POKE_S = 0.05
#: A child that lived shorter is replaced only after as long (seconds).
SHORT_LIFE_S = 1.0


class Worker:
    """One worker: named first, so that signals can tell of it, then equipped; `run` returns its exit code."""

    def __init__(self, app: Any, hostname: str) -> None:
        """`hostname`: the node name."""
        self.app, self.hostname = app, hostname
        self._stopping = ""
        self._ready = False
        self._asked_at = 0.0
        self._calls = Calls()
        self._replacing: list[int] = []

    def equip(
        self, plan: Plan, judge: Judge, settler: Settler, accept: frozenset[str], buffer: Buffered | None
    ) -> None:
        """All that it needs to run. `accept`: content types; `buffer`: of its log, if it is ours."""
        self.plan, self.judge = plan, judge
        self._settler, self._accept, self._buffer = settler, accept, buffer

    # -- start ------------------------------------------------------------------------------------------------------

    def run(self, on_ready: Callable[[], None]) -> int:
        """Start, work until stopped, stop; `on_ready` is called when the children are at work."""
        self._on_ready = on_ready
        epilogue.forget_old(self.plan.folder)
        self._table = self._make_table()
        names = sorted(name for name in self.app.tasks if not name.startswith("celery."))
        self._record = Record(self.plan, self._table, names)
        self._children = Children(self._table, self._become_child, self._tell_epilogue, self._on_death)
        self._watchdog = watchdog.Watchdog(self._children)
        signals.worker_init.send(self)  # before the fork: what receivers prepare, the children have
        self._children.fork_template()
        self._calls.take_signals()
        self._leases = self._make_leases()
        self._leases.submit(self._leases.rescue.leftovers)
        self._leases.start()
        for _ in range(self.plan.concurrency):
            self._start_child()
        self._loop()
        return self._stop()

    def _make_leases(self) -> Leases:
        setup = self.plan.setup
        herald = Herald(self._table, setup.node, setup.news.exchange)
        pulse = Pulse(setup.news, setup.node, self._table, herald, self._record.count)

        def on_loss(message: Envelope, error: BaseException) -> None:
            """In the lease thread: a task was settled that was killed, or whose process was lost."""
            if herald.look():
                herald.lost(message, error)
            if epilogue.wanted(self.judge.runner, message.headers.task):
                self._calls.post(lambda: self._children.tell(epilogue.write(self.plan.folder, message.raw, error)))

        self.judge.on_loss = on_loss
        names = setup.key_prefix, setup.priorities
        post = Post(setup.url, setup.worker_id, setup.queues, setup.lease_s, *names, self.plan.folder)
        rescue = Rescue(post, self.judge, self.plan.leftovers)
        leases = Leases(post, self._table, rescue, pulse, self._record.describe, self._on_strays)
        state = State(self, leases, pulse, self._record, self._children, self._calls, self._accept)
        leases.on_command = Ear(state, self._accept, self.app.conf.task_serializer).heard
        return leases

    def _make_table(self) -> Slots:
        setup = self.plan.setup
        who = setup.worker_id.rpartition(":")[2]
        facts = Facts(setup.worker_id, setup.queues, successor.digest(setup.url), [os.getpid()])
        return Slots.create(self.plan.folder / f"{who}.slots", facts)

    def _means(self, table: Slots) -> Means:
        return Means(
            setup=self.plan.setup,
            table=table,
            tasks=self.app.tasks,
            backend=self.app.backend,
            settler=self._settler,
            accept=self._accept,
            buffer=self._buffer,
            call_parent=self._calls.call,
        )

    def _become_child(self, index: int) -> None:
        child.run(self._means(self._table), index)

    def _tell_epilogue(self, path: str) -> None:
        epilogue.tell(Path(path), self.judge.runner)

    def serve_as_template(self, link: str, facts: str) -> None:
        """Be a template that an older worker has started by exec (after SIGHUP); never returns."""
        import socket

        from opsq.worker import template

        descriptor, parent = (int(part) for part in link.split(":"))
        told = json.loads(facts)
        self._calls.writer = told["writer"]
        setup = replace(self.plan.setup, worker_id=told["id"], waiting_lock=Path(told["lock"]))
        self.plan = replace(self.plan, setup=setup)
        self._table = Slots.attach(Path(told["slots"]))
        signals.worker_init.send(self)
        template.serve(socket.socket(fileno=descriptor), self._become_child, self._tell_epilogue, parent)

    def _look_whether_ready(self) -> None:
        """Ready means that as many children as wanted are at work."""
        at_work = sum(child.slot.words[slots.STATE] >= slots.IDLE for child in self._children.alive.values())
        if self._ready or at_work < self.plan.concurrency:
            return
        self._ready = True
        notify.ready()
        signals.worker_ready.send(self)
        self._on_ready()

    # -- children ---------------------------------------------------------------------------------------------------

    def _start_child(self) -> None:
        slot = self._table.free()
        if slot is None or self._stopping:
            return
        slot.clear()
        slot.words[slots.STATE] = slots.STARTING
        self._leases.register(slot.index, lambda: self._calls.post(lambda: self._fork(slot)))

    def _fork(self, slot: Slot) -> None:
        if self._stopping or not self._children.templates:
            slot.clear()
            return
        self._children.fork(slot)

    def _on_death(self, dead: Child, status: int | None) -> None:
        """Settle what it held, then its slot is free; meanwhile another one starts in another slot."""
        slot = dead.slot
        self._record.ended(slot.words[slots.DONE])
        left_nothing = status == 0 and slot.words[slots.STATE] == slots.LEAVING
        slot.words[slots.STATE] = slots.SETTLING
        how = how_it_ended(dead, status)
        if how:
            logger.error("child %d %s", slot.index, how)
        self._leases.submit(lambda: self._release(slot) if left_nothing else self._settle(dead, how))
        if not self._stopping:
            lived = time.monotonic() - dead.born_at
            at_once = lived > SHORT_LIFE_S or dead.killed or not how
            self._calls.after(0.0 if at_once else SHORT_LIFE_S, self._start_child)
            self._replace_next()

    def _settle(self, dead: Child, how: str) -> None:
        """In the lease thread."""
        slot, setup = dead.slot, self.plan.setup
        consumer = self._leases.rescue.consumer(setup.queues, child.consumer_name(setup.worker_id, slot.index))
        try:
            consumer.connect()
            successor.settle_slot(self.judge, consumer, slot, f"its process {how or 'ended'}", dead.limit)
            consumer.retire()
        finally:
            consumer.close()
        self._release(slot)

    def _release(self, slot: Slot) -> None:
        """In the lease thread: nothing of a child is left, its slot is free."""
        self._leases.registered.discard(slot.index)
        slot.clear()

    def _on_strays(self, indexes: set[int]) -> None:
        """In the lease thread: idle children hold messages that they do not know; a turn shows them."""

        def tell() -> None:
            for index in indexes & self._children.alive.keys():
                self._children.signal(self._children.alive[index], signal.SIGUSR1)

        self._calls.post(tell)

    # -- the loop ---------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._stopping:
            self._pass(self._wait_s())

    def _wait_s(self) -> float | None:
        waits = [self._watchdog.look(), self._calls.due_in_s]
        if self._children.poke():
            waits.append(POKE_S)
        limited = [wait for wait in waits if wait is not None]
        return min(limited, default=None)

    def _pass(self, seconds: float | None) -> None:
        """Wait for something to happen, or so long; then do all that is to be done."""
        poller = select.poll()
        poller.register(self._calls.reader, select.POLLIN)
        by_descriptor = {found.link.fileno(): found for found in self._children.templates}
        for descriptor in by_descriptor:
            poller.register(descriptor, select.POLLIN)
        for descriptor, event in poller.poll(None if seconds is None else seconds * 1000 + 1):
            if descriptor == self._calls.reader:
                self._read_calls()
            else:
                self._children.read(by_descriptor[descriptor])
                if event & (select.POLLHUP | select.POLLERR):
                    self._look_for_lost_templates()
        self._calls.obey()
        if not self._ready:
            self._look_whether_ready()

    def _read_calls(self) -> None:
        """Bytes of signals (their numbers), of other threads and of children."""
        for number in self._calls.read():
            if number in (signal.SIGINT, signal.SIGTERM):
                self.ask_to_stop("warm")
            elif number == signal.SIGQUIT:
                self.ask_to_stop("cold")
            elif number == signal.SIGHUP:
                self._replace_children()
            elif number == signal.SIGCHLD:
                self._look_for_lost_templates()

    # -- templates --------------------------------------------------------------------------------------------------

    def _look_for_lost_templates(self) -> None:
        if self._children.reap_templates() and not self._stopping:
            logger.error("the template of the children was killed, a new one starts")
            self._new_template()

    def _new_template(self) -> None:
        setup = self.plan.setup
        facts = {"writer": self._calls.writer, "slots": str(self._table.path), "id": setup.worker_id}
        self._children.exec_template(json.dumps({**facts, "lock": str(setup.waiting_lock)}), [self._calls.writer])

    def _replace_children(self) -> None:
        """SIGHUP: a fresh template with today's code; the children are replaced one by one."""
        logger.warning("reloading: the children are replaced one by one")
        self._replacing = list(self._children.alive)
        self._new_template()
        self._replace_next()

    def _replace_next(self) -> None:
        self._children.end_idle_templates()
        while self._replacing:
            found = self._children.alive.get(self._replacing.pop(0))
            if found is not None:
                found.slot.words[slots.LEAVE] = 1
                self._children.announce()
                return

    # -- stop -------------------------------------------------------------------------------------------------------

    def ask_to_stop(self, how: str) -> None:
        """Stop: `warm` when what runs has ended, `cold` at once; warm a second time is cold. In the parent's thread."""
        now = time.monotonic()
        if how == "warm" and self._stopping:
            if now - self._asked_at < SECOND_SIGNAL_S:
                return
            how = "cold"
        if not self._stopping:
            self._asked_at = now
            signals.worker_shutting_down.send(self, sig=how, how=how.capitalize(), exitcode=0)
        if self._stopping != how:
            self._stopping = how
            logger.warning("worker: %s shutdown (MainProcess)", how.capitalize())

    def _stop(self) -> int:
        """Warm: what runs may end, the rest goes back. Cold: the children are killed, and what they held is settled."""
        notify.stopping()
        self._table.words[slots.STOPPING] = 1
        self._children.announce()
        while self._children.alive:
            if self._stopping == "cold":
                self._children.kill_all()
            self._pass(self._wait_s())
        self._leases.submit(self._leases.sign_off)
        self._leases.end()
        self._leases.join(timeout=30.0)
        self._calls.obey()  # what was settled last may have an epilogue
        self._children.end_idle_templates(all_of_them=True)
        self.plan.setup.waiting_lock.unlink(missing_ok=True)
        if not any(True for _ in self._table.used()):
            self._table.remove()
        signals.worker_shutdown.send(self)
        if self._buffer is not None:
            self._buffer.write_out()
        return 0
