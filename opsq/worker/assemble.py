"""A worker from an app's settings and the wishes of the command line: all that is decided once at start."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from opsq import platforms
from opsq._version import __version__
from opsq.broker.leftovers import Leftovers
from opsq.broker.order import QueueOrder
from opsq.concurrency import kinds
from opsq.concurrency.base import POOLS, Pool, pool_named
from opsq.datastore.connection import parse_url
from opsq.events.event import MAILBOX_SUFFIX, Channels
from opsq.exceptions import ImproperlyConfigured, RefusedError, UsageError
from opsq.execution.runner import Runner
from opsq.protocol import codec
from opsq.protocol.routing import Binding
from opsq.runtime.logs import Buffered, level_number
from opsq.worker import first_look
from opsq.worker.child import Setup
from opsq.worker.herald import ALWAYS, AUTOMATIC, NEVER, News
from opsq.worker.limit_options import Ruling
from opsq.worker.record import Plan
from opsq.worker.settle import Results, Settler, without_claims
from opsq.worker.successor import Judge
from opsq.worker.terms import AT_ONCE, MOST_CHILDREN, Terms, facts_of
from opsq.worker.upkeep import Caps
from opsq.worker.watch import source_folders

logger = logging.getLogger("opsq.worker")

#: Seconds that a worker's messages are its own without a sign of life.
LEASE_S = 15.0
#: Between two signs of life as an event (seconds).
HEARTBEAT_S = 2.0
#: The most tasks that one process runs at once.
MOST_AT_ONCE = 20_000
#: Settings of a worker that are numbers.
NUMBERS = (
    "worker_concurrency",
    "worker_prefetch_multiplier",
    "worker_max_tasks_per_child",
    "worker_max_memory_per_child",
    "task_time_limit",
    "task_soft_time_limit",
    "task_max_deliveries",
)
#: What `worker_concurrency` may say instead of a number.
AS_MANY_AS_CPUS = "auto"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asks for; empty or None = as the app's settings say.

    `heartbeat_s`: 0 = no heartbeats; `autoscale`: most and least children; `reload`: when a source file changes;
    `mingles`: Celery's workers are asked what is revoked.
    """

    queues: Sequence[str] = ()
    exclude: Sequence[str] = ()
    also: Sequence[str] = ()
    concurrency: int | None = None
    pool: str | None = None
    prefetch: int | None = None
    lease_s: float | None = None
    heartbeat_s: float | None = None
    autoscale: tuple[int, int] | None = None
    log_level: int = logging.WARNING
    reload: bool = False
    mingles: bool = True


def cpus() -> int:
    """How many CPUs this process may use: by its affinity and by the quota of its control group."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(count, int(quota + 0.5)) if quota else count)


def _cgroup_quota() -> float | None:
    """CPUs by quota of control groups, version 2 or 1; None without a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        micros = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text())
        return micros / int(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text()) if micros > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def queues_for(app: Any, wishes: Wishes, node: str) -> list[str]:
    """The queues to consume, in order; those of broadcasts, and one more with `worker_direct`, are the node's alone."""
    declared = app.declared

    def real(name: str) -> str:
        """The name of the queue that is meant: of a broadcast, this node's own."""
        known = declared.known(name)
        return name if known is None else known.own_of(node) if known.is_broadcast else known.name

    own = [first_look.own_queue(node)] if app.conf.worker_direct else []
    queues = list(dict.fromkeys([*map(real, wishes.queues or declared.by_name), *own, *map(real, wishes.also)]))
    for name in map(real, wishes.exclude):
        if name in queues:
            queues.remove(name)
    if not queues:
        raise UsageError("no queue is left to consume", why="-X excludes all of them")
    return queues


class Named(Protocol):
    """A worker, or one that is a process alone."""

    app: Any
    hostname: str

    def equip(
        self, plan: Plan, judge: Judge, settler: Settler, accept: frozenset[str], buffer: Buffered | None
    ) -> None:
        """It gets all that it needs."""


def equip(worker: Named, wishes: Wishes, folder: Path, buffer: Buffered | None, own_id: str = "") -> None:
    """Give a worker all that it needs. Raises BrokerError, RefusedError, ImproperlyConfigured, UsageError.

    `own_id`: the id of the worker that it belongs to already.
    """
    app, node = worker.app, worker.hostname
    url = app.find_broker().url
    strategy = (app.conf.broker_transport_options or {}).get("queue_order_strategy")
    order, queues = QueueOrder.of(app.conf.worker_queue_order, strategy, queues_for(app, wishes, node))
    prefix = app.broker.key_prefix
    results = first_look.look(app, url, node, own_id)
    accept = codec.accepted(app.conf.accept_content)
    _refuse_pickle_as_root(accept)
    conf = app.conf
    _check_numbers(conf)
    worker_id = f"{node}:{uuid.uuid4().hex[:8]}"
    pool = pool_named(wishes.pool or app.conf.worker_pool or "prefork")
    _refuse_what_is_not_installed(pool)
    kinds.load(pool)
    setup = Setup(
        url=url,
        queues=queues,
        worker_id=worker_id,
        node=node,
        key_prefix=prefix,
        priorities=app.broker.priorities,
        order=order,
        lease_s=wishes.lease_s or LEASE_S,
        caps=Caps(
            prefetch=_prefetch(app, wishes),
            tasks=conf.worker_max_tasks_per_child or 0,
            memory_kib=conf.worker_max_memory_per_child or 0,
            at_once=_size(app, wishes, pool) if pool.many else 1,
        ),
        waiting_lock=folder / f"{worker_id.rpartition(':')[2]}.waiting",
        pool=pool.name,
        redirect_level=level_number(conf.worker_redirect_stdouts_level) if conf.worker_redirect_stdouts else None,
        zone=app.timezone,
        news=_news(app, wishes, url),
        discards=bool(conf.worker_discard_invalid_messages),
        task_log_bytes=max(conf.task_log_max_bytes or 0, 0),
        limits=Ruling.read(app.tasks, conf.queue_limits, bool(conf.worker_disable_rate_limits)),
    )
    terms = _terms(app, wishes, setup)
    leftovers = Leftovers(queues, prefix, conf.broker_transport_options or {})
    plan = Plan(setup, terms, folder, __version__, socket.gethostname(), leftovers)
    settler = Settler(queues, results, prefix, app.broker.priorities)
    worker.equip(plan, judge_of(app, node, results), settler, accept, buffer)


def judge_of(app: Any, node: str, results: Results) -> Judge:
    """Who settles what others have left, in the name of a node."""
    backend, broker = app.backend, app.broker
    accept = codec.accepted(app.conf.accept_content)
    runner = Runner(app.tasks, accept, node, backend.record if backend.keeps_results else None, app.following)

    def settler(names: list[str]) -> Settler:
        """It sends no body of a chord, so it leaves that to the next look at the chords."""
        return Settler(names, without_claims(results), broker.key_prefix, broker.priorities)

    return Judge(runner, settler, app.conf.task_max_deliveries or 0)


def _terms(app: Any, wishes: Wishes, setup: Setup) -> Terms:
    conf = app.conf
    if wishes.autoscale is not None and setup.pool == "prefork":
        most, least = wishes.autoscale
        if not 0 <= least <= most <= MOST_CHILDREN or not most:
            raise UsageError(
                f"cannot scale between {least} and {most} children",
                why=f"it is --autoscale MAX,MIN, with 1 to {MOST_CHILDREN} at most",
            )
        least = max(least, 1)
    else:
        pool = POOLS[setup.pool]
        most = 1 if pool.many else _size(app, wishes, pool)
        least = min(most, AT_ONCE)
    return Terms(
        queues=setup.queues,
        least=least,
        most=most,
        scales=wishes.autoscale is not None and least < most,
        caps=setup.caps,
        log_level=wishes.log_level,
        stop_s=float(conf.worker_soft_shutdown_timeout or 0),
        stops_idle=bool(conf.worker_enable_soft_shutdown_on_idle),
        max_deliveries=conf.task_max_deliveries or 0,
        tasks=facts_of(app.tasks),
        sources=source_folders() if wishes.reload else [],
        limits=setup.limits,
        bindings=_bindings(app, setup.queues, setup.node),
    )


def _bindings(app: Any, queues: Sequence[str], node: str) -> dict[str, list[Binding]]:
    """How its queues are bound."""
    own = {each.own_of(node): each for each in app.declared.by_name.values() if each.is_broadcast}
    return {name: list(own[name].bindings if name in own else app.declared.bindings(name)) for name in queues}


def _news(app: Any, wishes: Wishes, url: str) -> News:
    """What is told as events: of tasks when somebody listens, unless the settings say something of it."""
    conf = app.conf
    tasks = AUTOMATIC
    if conf.source_of("worker_send_task_events") != "default":
        tasks = ALWAYS if conf.worker_send_task_events else NEVER
    return News(
        channels=Channels.of(parse_url(url).db, conf.broker_transport_options),
        exchange=conf.event_exchange,
        mailbox=conf.control_exchange + MAILBOX_SUFFIX if conf.worker_enable_remote_control else "",
        tasks=tasks,
        interval_s=HEARTBEAT_S if wishes.heartbeat_s is None else wishes.heartbeat_s,
        mingles=wishes.mingles,
    )


def _refuse_pickle_as_root(accept: frozenset[str]) -> None:
    """Who may write to the queue would be root here: reading pickle runs code."""
    if "application/x-python-serialize" in accept and platforms.is_root() and not platforms.C_FORCE_ROOT:
        raise RefusedError(
            "cannot run as root with pickle in accept_content",
            why="who can write to a queue could then run anything as root",
            hint="use --uid USER, or set C_FORCE_ROOT=1 if you trust every producer",
        )


def _check_numbers(conf: Any) -> None:
    """What is counted or timed later on is a number, or not set."""
    for name in NUMBERS:
        value = conf[name]
        if name == "worker_concurrency" and value == AS_MANY_AS_CPUS:
            continue
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ImproperlyConfigured(f"cannot use {name} = {value!r}", why="it is no number")


def _refuse_what_is_not_installed(pool: Pool) -> None:
    if pool.library and find_spec(pool.library) is None:
        raise ImproperlyConfigured(
            f"cannot use the pool {pool.name}",
            why=f"{pool.library} is not installed",
            hint=f"pip install 'opsq[{pool.library}]'",
        )


def _size(app: Any, wishes: Wishes, pool: Pool) -> int:
    """How many tasks run at once: children, or as many in one child."""
    if pool.name == "solo":
        return 1
    wanted = app.conf.worker_concurrency
    size = int(wishes.concurrency or (wanted if wanted != AS_MANY_AS_CPUS else None) or pool.size or cpus())
    most = MOST_AT_ONCE if pool.many else MOST_CHILDREN
    if not 0 < size <= most:
        what = "tasks at once" if pool.many else "children"
        raise UsageError(f"cannot run {size} {what}", why=f"a worker has from 1 to {most}")
    return size


def _prefetch(app: Any, wishes: Wishes) -> int:
    """A hard cap of messages in hand, 0 = automatic. Celery's default of 4 is no wish of anybody."""
    if wishes.prefetch is not None:
        return wishes.prefetch
    if app.conf.worker_disable_prefetch:
        return 1
    if app.conf.source_of("worker_prefetch_multiplier") == "default":
        return 0
    return int(app.conf.worker_prefetch_multiplier or 0)
