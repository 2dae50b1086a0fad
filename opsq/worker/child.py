"""What a child process is: its signals, its end with its parent, its connections and its line of work."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from types import FrameType
from typing import Any

from opsq import signals
from opsq.broker.consumer import Consumer
from opsq.broker.order import QueueOrder
from opsq.concurrency.base import POOLS
from opsq.concurrency.here import here
from opsq.concurrency.kinds import make_executor, make_lock
from opsq.datastore.priorities import Priorities
from opsq.datastore.trouble import TROUBLE
from opsq.events.event import TASKS
from opsq.exceptions import SoftTimeLimitExceeded
from opsq.execution.context import Context
from opsq.execution.runner import Runner
from opsq.protocol.envelope import Envelope
from opsq.runtime.logs import Buffered, redirect_standard_streams
from opsq.runtime.process import start_ticks
from opsq.states import STARTED
from opsq.worker import overrides, slots
from opsq.worker.admission import Admission
from opsq.worker.attempt import Attempts, Ports
from opsq.worker.chords import Conductor
from opsq.worker.course import Course
from opsq.worker.crowd import Crowd
from opsq.worker.gate import Gate
from opsq.worker.herald import Herald, News
from opsq.worker.idle import Waiting
from opsq.worker.ledger import Ledger
from opsq.worker.limit_options import Ruling
from opsq.worker.limits import Policy
from opsq.worker.lines import Lines
from opsq.worker.loop import Line
from opsq.worker.many import ManyLine
from opsq.worker.revocations import Revocations
from opsq.worker.settle import Settler
from opsq.worker.shared_ledger import SharedLedger
from opsq.worker.slots import Slots
from opsq.worker.strangers import Strangers
from opsq.worker.task_log import TaskLog
from opsq.worker.upkeep import Caps

logger = logging.getLogger("opsq.worker")


@dataclass(frozen=True, slots=True)
class Setup:
    """What all children of a worker have in common.

    `worker_id` is `<node>:<8 hex>`; times are in seconds; `redirect_level`: prints become log lines of this level;
    `zone`: of times that name none; `news`: what is told as events; `discards`: what cannot
    be run is thrown away; `task_log_bytes`: what the kept lines of all tasks may take, 0 = none are kept;
    `limits`: of tasks and queues.
    """

    url: str
    queues: list[str]
    worker_id: str
    node: str
    key_prefix: str
    priorities: Priorities
    order: QueueOrder
    lease_s: float
    caps: Caps
    waiting_lock: Path
    pool: str
    redirect_level: int | None
    zone: tzinfo
    news: News
    discards: bool
    task_log_bytes: int
    limits: Ruling


@dataclass(frozen=True, slots=True)
class Means:
    """What a child makes its own from: made before the fork, used after it."""

    setup: Setup
    table: Slots
    app: Any
    settler: Settler
    accept: frozenset[str]
    buffer: Buffered | None
    call_parent: Callable[[], None]


def consumer_name(worker_id: str, index: int) -> str:
    """The name under which a child's messages are held: `<node>:<8 hex>:<slot>`."""
    return f"{worker_id}:{index}"


def run(means: Means, index: int) -> None:
    """Be the child of a slot until it ends; the process exits after that. It ends with the template that forked it."""
    _quiet_signals()
    _name_process(means.setup, index)
    means.table.let_go()
    prints = None
    if means.buffer is not None and means.setup.redirect_level is not None:
        prints = redirect_standard_streams(means.setup.redirect_level)
    task_log = None
    if means.setup.task_log_bytes:
        task_log = TaskLog(means.setup.url, means.setup.key_prefix, means.setup.task_log_bytes)
        task_log.install()
    slot = means.table.slot(index)
    slot.words[slots.PID], slot.words[slots.TICKS] = os.getpid(), start_ticks(os.getpid()) or 0
    work = work_of(means, index, Lines(means.buffer, prints))
    work.listen()
    means.app.on_after_fork.send(means.app)
    signals.worker_process_init.send(means.setup.node)
    conductor = Conductor(means.app, means.settler) if means.app.backend.keeps_results else None
    if conductor is not None:
        means.settler.on_complete = conductor.complete
    try:
        work.run()
        if conductor is not None:
            conductor.finish()
    except Exception:
        logger.critical("this child ends, its parent starts another one", exc_info=True)
        raise
    finally:
        signals.worker_process_shutdown.send(means.setup.node, pid=os.getpid(), exitcode=0)
        if means.buffer is not None:
            means.buffer.write_out()
        if task_log is not None:
            task_log.finish()


def _quiet_signals() -> None:
    """A signal to the whole group (Ctrl-C, `stopasgroup`) kills no task: the parent tells its children what to do."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)


def _name_process(setup: Setup, index: int) -> None:
    from multiprocessing import process  # only its name is wanted: log lines carry it

    process.current_process().name = f"ForkPoolWorker-{index + 1}"
    try:
        from setproctitle import setproctitle
    except ImportError:
        return
    setproctitle(f"opsq worker {setup.node}: child {index}")


@dataclass(frozen=True, slots=True)
class Work:
    """What a child does: `listen` (in the main thread) takes the parent's signals, `run` works until its end."""

    line: Line | ManyLine
    listen: Callable[[], None]
    run: Callable[[], None]


def work_of(means: Means, index: int, lines: Lines) -> Work:
    """The work of a child, from its connections to its line."""
    setup = means.setup
    slot = means.table.slot(index)
    consumer = Consumer(
        setup.url,
        setup.queues,
        consumer_name(setup.worker_id, index),
        results_db=means.settler.results.database,
        key_prefix=setup.key_prefix,
        priorities=setup.priorities,
        order=setup.order,
        events_channel=setup.news.channel(TASKS),
        number=slot.first_number,
    )
    herald = Herald(means.table, setup.node, setup.news.exchange)
    runner = Runner(means.app.tasks, means.accept, setup.node, _record(means.app.backend), means.app.following)
    runner.discards, runner.around = setup.discards, means.app.around_task
    pool, arguments = POOLS[setup.pool], (consumer, means.settler, slot, herald.take)
    ledger = SharedLedger(*arguments, lock=make_lock(pool)) if pool.many else Ledger(*arguments)
    page = means.table.words
    policy = Policy(setup.limits, setup.key_prefix, setup.priorities, means.app.tasks)
    admission = Admission(consumer, setup.worker_id, policy, means.accept, lambda: int(page[slots.LIMITS]))
    ledger.passed = admission.passed
    gate = Gate(setup.zone, [Revocations(consumer, setup.key_prefix)], [admission])

    strangers = Strangers(consumer, lambda: bool(page[slots.REPLACING] or slot.words[slots.LEAVE]))

    def store_started(message: Envelope) -> None:
        _store_started(means, message)

    def take_overrides() -> None:
        overrides.apply(means.table, runner)

    if isinstance(ledger, SharedLedger):
        many = ManyLine(means.table, slot, ledger, lines, setup.caps, make_lock(pool))

        def many_limit_begins(number: int, name: str) -> None:
            many.runs.name(number, name)
            _watch_limits(means)

        ports = Ports(store_started, many_limit_begins, strangers.due_ms)
        attempts = Attempts(runner, ledger, many.runs, lines, herald, ports, gate)
        executor = make_executor(pool, setup.caps.at_once, Course(many.runs, attempts, many.alarm.ring))
        runner.wrap = executor.wrap
        many.equip(attempts, executor, means.call_parent, setup.lease_s)
        many.take_overrides = take_overrides
        return Work(many, many.alarm.install, lambda: executor.serve(many.run))

    def limit_begins(_number: int, name: str) -> None:
        slot.name_task(name)
        _watch_limits(means)

    ports = Ports(store_started, limit_begins, strangers.due_ms)
    attempts = Attempts(runner, ledger, slot, lines, herald, ports, gate)
    waiting = Waiting(setup.waiting_lock, setup.lease_s, Crowd(means.table.words))
    line = Line(means.table, slot, ledger, attempts, waiting, lines, means.call_parent, setup.caps)
    line.take_overrides = take_overrides
    return Work(line, lambda: waiting.install(_on_usr1(line, waiting)), line.run)


def _on_usr1(line: Line, waiting: Waiting) -> Callable[[int, FrameType | None], None]:
    """SIGUSR1: the page has changed, or the soft time limit of the message that runs has passed."""

    def handle(number: int, frame: FrameType | None) -> None:
        if line.soft_limit_reached():
            line.slot.words[slots.SOFT_NUMBER] = 0
            if here().interrupt(SoftTimeLimitExceeded):
                return
            raise SoftTimeLimitExceeded
        waiting.on_signal(number, frame)

    return handle


def _record(backend: Any) -> Callable[[Context, str, Any, str | None], bytes] | None:
    return backend.record if backend is not None and backend.keeps_results else None


def _watch_limits(means: Means) -> None:
    """Wake the parent, unless it is looking at the limits already."""
    if not means.table.words[slots.WATCHING]:
        means.table.words[slots.WATCHING] = 1
        means.call_parent()


def _store_started(means: Means, message: Envelope) -> None:
    """`track_started`: say that the task runs, by whom."""
    record = _record(means.app.backend)
    if record is None:
        return
    request = Context.of(message, None, means.setup.node)
    data = record(request, STARTED, {"pid": os.getpid(), "hostname": means.setup.node}, None)
    try:
        means.app.backend.store_records([means.settler.result(message.headers.id, data)[1:]])
    except TROUBLE as error:
        logger.warning("cannot store that %s[%s] has started: %s", message.name, message.headers.id, error)


def leave(status: int) -> None:
    """End this process without the clean-up of the process it was forked from."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os._exit(status)
