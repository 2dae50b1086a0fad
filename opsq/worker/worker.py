"""The parent of a worker: builds its parts from settings, keeps the children alive and within limits, stops in order.

It never waits for Redis itself (the lease thread does) and runs no task.
"""

from __future__ import annotations

import logging
import os
import select
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from opsq import signals
from opsq.concurrency.base import POOLS
from opsq.execution.runner import Runner
from opsq.protocol.envelope import Envelope
from opsq.runtime import notify
from opsq.runtime.logs import Buffered
from opsq.utils.ids import new_task_id
from opsq.worker import child, chords, epilogue, greenchild, mingle, overrides, slots, successor, watchdog
from opsq.worker.autoscale import Heads, autoscaler_of
from opsq.worker.broadcasts import Broadcasts
from opsq.worker.calls import Calls
from opsq.worker.child import Means, Setup
from opsq.worker.children import Child, Children
from opsq.worker.herald import Herald
from opsq.worker.leases import Leases
from opsq.worker.limited import Limited
from opsq.worker.limits import Policy
from opsq.worker.newcomer import Report, Told, told_of
from opsq.worker.panel import State
from opsq.worker.post import Post
from opsq.worker.pulse import Pulse
from opsq.worker.record import Plan, Record, how_it_ended
from opsq.worker.reload import Reload
from opsq.worker.remote import Ear
from opsq.worker.rescue import Rescue
from opsq.worker.settle import Settler
from opsq.worker.sizing import Sizing
from opsq.worker.slots import Facts, Slot, Slots
from opsq.worker.stop import Stop
from opsq.worker.successor import Judge
from opsq.worker.terms import known_tasks
from opsq.worker.watch import SourceWatch

logger = logging.getLogger("opsq.worker")

#: How often children that have not seen the newest page are told again (seconds).
POKE_S = 0.05


class Worker:
    """One worker: named first, so that signals can tell of it, then equipped; `run` returns its exit code."""

    def __init__(self, app: Any, hostname: str) -> None:
        """`hostname`: the node name."""
        self.app, self.hostname = app, hostname
        self._stop = Stop(self)
        self._ready = False
        #: Queues that remote commands have added (true) or cancelled (false).
        self._orders: dict[str, bool] = {}
        self._calls = Calls()
        self._poke_chords: Callable[[], None] = lambda: None
        #: Children that a cold stop has killed: settled together, so that their messages keep their order.
        self._fallen: list[tuple[Child, str]] = []

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
        terms = self.plan.terms
        self._record = Record(self.plan, self._table)
        self._children = Children(
            self._table, self.become_child, self.tell_epilogue, self._on_death, lambda: self._reload.ready()
        )
        self._watchdog, self._memory = watchdog.Watchdog(self._children), watchdog.MemoryWatch(self._children)
        self._memory.limit_kib = terms.caps.memory_kib
        signals.worker_init.send(self)  # before the fork: what receivers prepare, the children have
        self._children.fork_template()
        self._calls.take_signals()
        self._leases = self._make_leases()
        heads = Heads(self._leases, self._calls.post, autoscaler_of(self.app))
        self.sizing = Sizing(self._table, self._children, self._leases, self._calls, heads, terms, self._record.take)
        self._reload = Reload(self._children, self.sizing, self._calls, self._told, self._take, self._on_reload)
        self._watch = SourceWatch(terms.sources, self._on_change)
        self._leases.submit(self._leases.rescue.leftovers)
        self._leases.start()
        self._watch_chords()
        self.sizing.fill()
        while not self._stop.how:
            self._pass(self._wait_s())
        return self._end()

    def _watch_chords(self) -> None:
        backend = self.app.backend
        if not backend.keeps_results:
            return

        def tell(path: Path) -> None:
            self._calls.post(lambda: self._children.tell(path))

        watch = chords.Watch(backend.chords, self.plan.folder, tell)
        self._poke_chords = watch.poke
        watch.start()

    def _make_leases(self) -> Leases:
        setup = self.plan.setup
        herald = Herald(self._table, setup.node, setup.news.exchange)
        pulse = Pulse(setup.news, setup.node, self._table, herald, self._record.count)

        def on_loss(message: Envelope, error: BaseException) -> None:
            """In the lease thread: a task was settled that was killed, or whose process was lost."""
            self._poke_chords()
            if herald.look():
                herald.lost(message, error)
            if epilogue.wanted(self.judge.runner, message, error):
                self._calls.post(lambda: self._children.tell(epilogue.write(self.plan.folder, message.raw, error)))

        def on_beat() -> None:
            """In the lease thread; receivers have the parent's, so that they hold up no lease."""
            if signals.heartbeat_sent.receivers:
                self._calls.post(self._tell_heartbeat)

        self.judge.on_loss, pulse.on_beat = on_loss, on_beat
        names = setup.key_prefix, setup.priorities
        post = Post(
            setup.url, setup.worker_id, setup.queues, setup.lease_s, *names, self.plan.folder, self.plan.terms.bindings
        )
        rescue = Rescue(post, self.judge, self.plan.leftovers)
        limited = Limited(post, Policy(setup.limits, *names))
        limited.own_rates = self._record.rate_limits
        broadcasts = Broadcasts(setup.news.channels)
        leases = Leases(post, self._table, rescue, pulse, limited, broadcasts, self._record.describe, self._on_strays)
        state = State(self, leases, pulse, self._record, self._children, self._calls, self._accept)
        leases.on_command = Ear(state, self._accept, self.app.conf.task_serializer).heard
        if setup.news.mailbox and setup.news.mingles:
            leases.submit(lambda: mingle.begin(state, setup.news.mailbox))
        return leases

    def _tell_heartbeat(self) -> None:
        signals.heartbeat_sent.send(self)

    def _make_table(self) -> Slots:
        setup = self.plan.setup
        who = setup.worker_id.rpartition(":")[2]
        facts = Facts(setup.worker_id, setup.queues, successor.digest(setup.url), [os.getpid()])
        return Slots.create(self.plan.folder / f"{who}.slots", facts)

    def _means(self, table: Slots) -> Means:
        return Means(
            setup=self.plan.setup,
            table=table,
            app=self.app,
            settler=self._settler,
            accept=self._accept,
            buffer=self._buffer,
            call_parent=self._calls.ring,
        )

    def become_child(self, index: int) -> None:
        """In a fresh child of the template: run tasks in this slot (green threads: in a fresh image)."""
        if POOLS[self.plan.setup.pool].library:
            greenchild.execute(self.plan.setup, index, self._table.path, self._calls.writer)
        child.run(self._means(self._table), index)

    def tell_epilogue(self, path: str) -> None:
        """In a fresh child: what a file says is to be told, or the body of a chord to be sent."""
        if path.endswith(chords.SUFFIX):
            self.app.backend.chords.token = new_task_id()  # what it takes it has before its brothers
            chords.dispatch_file(Path(path), self.app, self._settler)
        else:
            epilogue.tell(Path(path), self.judge.runner)

    def serve_as_child(self, setup: Setup, index: int, table: Slots, writer: int) -> None:
        """Be the child of a worker that runs already, in a process that was started by exec."""
        self.plan, self._table, self._calls.writer = replace(self.plan, setup=setup), table, writer
        signals.worker_init.send(self)
        child.run(self._means(table), index)

    def be_template(self, plan: Plan, table: Slots, writer: int) -> None:
        """Be a template of an older worker from now on (after SIGHUP): its plan, its file, what wakes it."""
        self.plan, self._table, self._calls.writer = plan, table, writer

    def _look_whether_ready(self) -> None:
        """Ready means that as many children as wanted are at work."""
        at_work = sum(child.slot.words[slots.STATE] >= slots.IDLE for child in self._children.alive.values())
        if self._ready or at_work < self.sizing.target:
            return
        self._ready = True
        notify.ready()
        signals.worker_ready.send(self)
        self._on_ready()

    # -- children ---------------------------------------------------------------------------------------------------

    def _on_death(self, dead: Child, status: int | None) -> None:
        """Settle what it held, then its slot is free; meanwhile another one starts in another slot."""
        slot = dead.slot
        self._record.ended(slot.words[slots.DONE])
        left_nothing = status == 0 and slot.words[slots.STATE] == slots.LEAVING
        slot.words[slots.STATE] = slots.SETTLING
        how = how_it_ended(dead, status)
        if how:
            logger.error("child %d %s", slot.index, how)
        if left_nothing:
            self._leases.submit(lambda: self._release(slot))
        elif self._stop.how == "cold":
            self._fallen.append((dead, how))
        else:
            self._leases.submit(lambda: self._settle(dead, how))
        self.sizing.ended(dead, not how)

    def _settle(self, dead: Child, how: str) -> None:
        """In the lease thread."""
        slot, setup = dead.slot, self.plan.setup
        queues = self._leases.registered.get(slot.index, setup.queues)
        consumer = self._leases.rescue.consumer(queues, child.consumer_name(setup.worker_id, slot.index))
        try:
            consumer.connect()
            why = f"its process {how or 'ended'}"
            successor.settle_slot(self.judge, consumer, slot, why, dead.limit, dead.terminated)
            consumer.retire()
        finally:
            consumer.close()
        self._release(slot)

    def _release(self, slot: Slot) -> None:
        """In the lease thread: nothing of a child is left, its slot is free."""
        self._leases.registered.pop(slot.index, None)
        slot.clear()
        self._calls.post(self.sizing.fill)

    def _on_strays(self, indexes: set[int]) -> None:
        """In the lease thread: idle children hold messages that they may not know; they are told to compare."""

        def tell() -> None:
            for index in indexes & self._children.alive.keys():
                holder = self._children.alive[index]
                holder.slot.words[slots.DOUBT] = 1
                self._children.signal(holder, signal.SIGUSR1)

        self._calls.post(tell)

    # -- the loop ---------------------------------------------------------------------------------------------------

    def _wait_s(self) -> float | None:
        parts = (self._watchdog, self._memory, self.sizing, self._reload, self._watch, self._stop)
        waits = [self._calls.due_in_s, *(part.look() for part in parts)]
        if self._children.poke():
            waits.append(POKE_S)
        return min((wait for wait in waits if wait is not None), default=None)

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
            if number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
                self._stop.asked(number, self.sizing.terms.stop_s)
            elif number == signal.SIGHUP:
                self.reload()
            elif number == signal.SIGCHLD:
                self._look_for_lost_templates()

    def _look_for_lost_templates(self) -> None:
        for ended in self._children.reap_templates():
            self._reload.lost(ended)

    # -- orders -----------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Today's code and settings, as after SIGHUP. In the parent's thread."""
        logger.warning("reloading: a new process imports today's code")
        self._reload.begin()

    @property
    def wanted_queues(self) -> list[str]:
        """The queues that it consumes, or will when what it was told has taken effect."""
        queues = [name for name in self.sizing.terms.queues if self._orders.get(name, True)]
        return list(dict.fromkeys([*queues, *(name for name, wanted in self._orders.items() if wanted)]))

    def consume(self, queue: str, wanted: bool) -> None:
        """Consume a queue besides, or no more, until the worker ends: fresh children do. In the parent's thread."""
        self._orders[queue] = wanted
        self._reload.begin()

    def set_time_limits(self, task: str, soft_s: float | None, hard_s: float | None) -> None:
        """Limits of all later runs of a task (seconds, None = none), until the worker ends. In the parent's thread."""
        if task in self.app.tasks:
            overrides.set_limits(self.app.tasks[task], soft_s, hard_s)
        overrides.write(self._table, task, soft_s, hard_s)
        self._children.announce()

    # -- reload -----------------------------------------------------------------------------------------------------

    def _told(self) -> Told:
        """What a newcomer is told."""
        backend = self.app.backend
        results = backend.url if backend.keeps_results else None
        return told_of(self.plan, self._table, self._calls.writer, results, self._orders)

    def _take(self, report: Report) -> None:
        """New terms take effect in the parent; those that fork children have them already."""
        terms, before = report.terms, self.sizing.terms
        if terms.log_level != before.log_level:
            for name in ("", "celery.task"):
                logging.getLogger(name).setLevel(terms.log_level)
        facts = self._table.facts
        known = list(dict.fromkeys([*facts.queues, *terms.queues]))
        self._table.write_facts(Facts(facts.worker, known, facts.broker, facts.parent))
        self._leases.consume(terms.queues, terms.bindings)
        self._leases.rule(terms.limits)
        self._record.take(terms)
        self._watch.take(terms.sources)
        self._memory.limit_kib = terms.caps.memory_kib
        runner = self.judge.runner
        self.judge.take(
            Runner(known_tasks(terms.tasks, self.app), runner.accept, runner.hostname, runner.record),
            terms.max_deliveries,
        )

    def _on_change(self, files: list[str]) -> None:
        """Source files have changed (`--reload`)."""
        shown = ", ".join(os.path.relpath(file) for file in files[:3])
        logger.warning("changed: %s%s", shown, f" and {len(files) - 3} more" if len(files) > 3 else "")
        self.reload()

    def _on_reload(self, why: str) -> None:
        """Tell the supervisor what has come of a reload."""
        notify.reloaded(why)

    # -- stop -------------------------------------------------------------------------------------------------------

    def ask_to_stop(self, how: str) -> None:
        """Stop: `warm` when what runs has ended, `cold` at once; warm a second time is cold. In the parent's thread."""
        self._stop.asked(signal.SIGQUIT if how == "cold" else signal.SIGTERM, self.sizing.terms.stop_s)

    def _end(self) -> int:
        """Have the children end, as the stop is warm or cold; settle what they leave; the exit code."""
        notify.stopping()
        self.sizing.stopping = True
        self._children.end_newcomer()
        self._table.words[slots.STOPPING] = 1
        self._children.announce()
        while self._children.alive or self._stop.waits_idle(self.sizing.terms.stops_idle):
            if self._stop.how == "cold":
                self._children.kill_all()
            self._pass(self._wait_s())
        self._settle_fallen()
        self._leases.submit(self._leases.sign_off)
        self._leases.end()
        self._leases.join(timeout=30.0)
        self._calls.obey()  # what was settled last may have an epilogue
        self._children.end_idle_templates(all_of_them=True)
        if not any(True for _ in self._table.used()):
            self._table.remove()
        signals.worker_shutdown.send(self)
        if self._buffer is not None:
            self._buffer.write_out()
        return 0

    def _settle_fallen(self) -> None:
        """What each held goes to the head of its queue: whose began last first, so that the oldest is the next one."""
        fallen = sorted(self._fallen, key=lambda each: each[0].slot.words[slots.STARTED_NS], reverse=True)
        for dead, how in fallen:
            self._leases.submit(lambda dead=dead, how=how: self._settle(dead, how))  # type: ignore[misc]
