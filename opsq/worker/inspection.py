"""The remote commands that ask something, one function each; their answers have the shape that Celery's have."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from opsq.app.masking import masked
from opsq.app.report import report as text_of_report
from opsq.broker import revoked as store
from opsq.config.option import parse_bool
from opsq.datastore.connection import parse_url
from opsq.protocol.routing import Binding
from opsq.runtime import usage
from opsq.worker import slots
from opsq.worker.holdings import Holding, held_by, info_of, scheduled_in
from opsq.worker.panel import NO_REPLY, State, inspect_command, ok

logger = logging.getLogger("opsq.worker")

#: What is told of a registered task, besides its name.
_TOLD_OF_TASKS = ("exchange", "routing_key", "rate_limit")
#: kombu's exchange and queue as mappings.
_EXCHANGE = {
    "type": "direct",
    "arguments": None,
    "durable": True,
    "passive": False,
    "auto_delete": False,
    "delivery_mode": None,
    "no_declare": False,
}
_QUEUE: dict[str, Any] = {
    **dict.fromkeys(("queue_arguments", "binding_arguments", "consumer_arguments")),
    "durable": True,
    "exclusive": False,
    "auto_delete": False,
    "no_ack": False,
    "alias": None,
    "bindings": [],
    **dict.fromkeys(("no_declare", "expires", "message_ttl", "max_length", "max_length_bytes", "max_priority")),
}


# -- tasks in hand -----------------------------------------------------------------------------------------------------


@inspect_command(alias="dump_active")
def active(state: State, safe: bool = False, **_: Any) -> list[Any]:
    """List of tasks currently being executed."""
    return [info_of(state, each, safe) for each in held_by(state) if each.state == "active"]


@inspect_command(alias="dump_reserved")
def reserved(state: State, **_: Any) -> list[Any]:
    """List of currently reserved tasks, not including scheduled/active."""
    return [info_of(state, each) for each in held_by(state) if each.state == "reserved"]


@inspect_command(alias="dump_schedule")
def scheduled(state: State, **_: Any) -> list[Any]:
    """List of currently scheduled ETA/countdown tasks: those of the worker's queues, the next ones first."""
    return [
        {
            "eta": datetime.fromtimestamp(each.due_s, UTC).isoformat() if each.due_s is not None else None,
            "priority": 6,
            "request": info_of(state, each),
        }
        for each in scheduled_in(state)
    ]


@inspect_command(variadic="ids", signature="[id1 [id2 [... [idN]]]]")
def query_task(state: State, ids: Any, **_: Any) -> dict[str, Any]:
    """Query for task information by id."""
    wanted = {ids} if isinstance(ids, str) else set(ids)
    everything: Iterator[Holding] = (each for found in (held_by(state), scheduled_in(state)) for each in found)
    return {
        each.message.headers.id: (each.state, info_of(state, each))
        for each in everything
        if each.message.headers.id in wanted
    }


@inspect_command(alias="dump_revoked")
def revoked(state: State, **_: Any) -> list[str]:
    """List of revoked task-ids: those that all workers here know."""
    return store.ids(state.redis, state.key(""))


@inspect_command(visible=False)
def hello(state: State, from_node: str, revoked: Any = None, of_opsq: bool = False, **_: Any) -> Any:
    """Request mingle sync-data: a worker that starts tells what it knows as revoked, and is told what is."""
    if of_opsq:
        return NO_REPLY  # it has the same Redis
    if from_node == state.hostname:
        return None
    logger.info("sync with %s", from_node)
    if revoked:
        store.revoke(state.redis, state.key(""), [str(each) for each in revoked])
    return {"revoked": store.ids(state.redis, state.key("")), "clock": state.tick()}


# -- the worker --------------------------------------------------------------------------------------------------------


@inspect_command(default_timeout=0.2)
def ping(state: State, **_: Any) -> Any:  # noqa: ARG001
    """Ping worker(s)."""
    return ok("pong")


@inspect_command
def clock(state: State, **_: Any) -> dict[str, int]:
    """Get current logical clock value."""
    return {"clock": int(state.leases.table.words[slots.CLOCK])}


@inspect_command(alias="dump_tasks", variadic="taskinfoitems", signature="[attr1 [attr2 [... [attrN]]]]")
def registered(state: State, taskinfoitems: Any = None, builtins: bool = False, **_: Any) -> list[str]:
    """List of registered tasks."""
    wanted = [name for name in taskinfoitems or _TOLD_OF_TASKS if isinstance(name, str) and not name.startswith("_")]
    names = sorted(name for name in state.record.terms.tasks if builtins or not name.startswith("celery."))
    return [_with_facts(name, state.app.tasks.get(name), wanted) for name in names]


def _with_facts(name: str, task: Any, wanted: Iterable[str]) -> str:
    """A task and what is known of it; of one that came with newer code its name."""
    values = ((field, getattr(task, field, None)) for field in wanted)
    facts = " ".join(f"{field}={value}" for field, value in values if value is not None)
    return f"{name} [{facts}]" if facts else name


@inspect_command
def stats(state: State, **_: Any) -> dict[str, Any]:
    """Request worker statistics/information."""
    record = state.record
    told = usage.used()
    return {
        "total": {"(all tasks)": record.count()[1]},
        "pid": os.getpid(),
        "clock": str(state.leases.table.words[slots.CLOCK]),
        "uptime": int(time.time() - record.since),
        "pool": _pool(state),
        "broker": _broker(state),
        "prefetch_count": record.terms.caps.prefetch * record.terms.most,
        "rusage": {name: getattr(told, f"ru_{name}", 0) for name in _RUSAGE},
    }


_RUSAGE = (
    *("utime", "stime", "maxrss", "ixrss", "idrss", "isrss", "minflt", "majflt"),
    *("nswap", "inblock", "oublock", "msgsnd", "msgrcv", "nsignals", "nvcsw", "nivcsw"),
)


def _pool(state: State) -> dict[str, Any]:
    plan, conf = state.worker.plan, state.app.conf
    pool, tasks = plan.setup.pool, plan.setup.caps.tasks
    words = [slot.words for slot in state.leases.table.used()]
    done = [int(each[slots.DONE]) for each in words]
    total = sum(done) or 1
    return {
        "implementation": f"opsq.concurrency.{pool}:TaskPool",
        "max-concurrency": state.record.terms.most * state.record.terms.caps.at_once,
        "processes": [int(each[slots.PID]) for each in words if each[slots.PID]],
        "max-tasks-per-child": tasks or "N/A",
        "put-guarded-by-semaphore": False,
        "timeouts": [conf.task_soft_time_limit or 0, conf.task_time_limit or 0],
        "writes": {
            "total": sum(done),
            "avg": f"{1 / max(len(done), 1):.2f}",
            "all": ", ".join(f"{each / total:.2f}" for each in done),
            "raw": ", ".join(map(str, done)),
            "strategy": "fair",
            "inqueues": {"total": len(done), "active": sum(bool(each[slots.CURRENT]) for each in words)},
        },
    }


def _broker(state: State) -> dict[str, Any]:
    where, conf = parse_url(state.leases.post.url), state.app.conf
    told = where.arguments
    return {
        "hostname": told.get("host") or told.get("path") or where.address,
        "userid": told.get("username"),
        "virtual_host": str(where.db),
        "port": told.get("port"),
        "insist": False,
        "ssl": where.kind == "tls",
        "transport": "redis",
        "connect_timeout": conf.broker_connection_timeout,
        "transport_options": masked("", dict(conf.broker_transport_options or {})),
        "login_method": None,
        "uri_prefix": None,
        "heartbeat": float(conf.broker_heartbeat or 0),
        "failover_strategy": "round-robin",
        "alternates": [],
        "credential_provider": None,
    }


@inspect_command
def active_queues(state: State) -> list[Any]:
    """List the task queues a worker is currently consuming from."""
    post, found = state.leases.post, []
    for name in post.queues:
        first = next(iter(post.bindings.get(name, ())), Binding(name, name))
        exchange = {"name": first.exchange, **_EXCHANGE, "type": first.type}
        found.append({"name": name, "exchange": exchange, "routing_key": first.routing_key, **_QUEUE})
    return found


@inspect_command(alias="dump_conf", signature="[include_defaults=False]", args=[("with_defaults", parse_bool)])
def conf(state: State, with_defaults: bool = False, **_: Any) -> dict[str, Any]:
    """List configuration; secrets are masked."""
    found = state.app.conf if with_defaults else state.app.conf.changed()
    return {name: _as_json(masked(name, found[name])) for name in found if not name.startswith("__")}


@inspect_command
def report(state: State) -> Any:
    """Information about the installation, for bug reports."""
    return ok(text_of_report(state.app))


_samples: list[str] = []


@inspect_command
def memsample(state: State, **_: Any) -> str:  # noqa: ARG001
    """Sample current RSS memory usage."""
    sample = f"{(usage.resident_bytes(os.getpid()) or 0) / 2**20:.3f}MB"
    _samples.append(sample)
    del _samples[:-1000]
    return sample


@inspect_command(args=[("samples", int)], signature="[n_samples=10]")
def memdump(state: State, samples: int = 10, **_: Any) -> str:
    """Dump statistics of previous memsample requests."""
    shown = _samples[-samples:]
    now = memsample(state)
    return "".join(["- rss (sample):\n", *(f"-    > {each},\n" for each in shown), f"- rss (end): {now}.\n"])


def _as_json(value: Any) -> Any:
    """The value in words of JSON; what has none as its repr."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, dict):
        return {str(key): _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_as_json(inner) for inner in cast("Sequence[Any]", list(value))]
    return repr(value)
