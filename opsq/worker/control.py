"""The remote commands that change something, one function each; their table is `panel`'s."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from opsq.broker import revoked
from opsq.broker.exchanges import announcement
from opsq.broker.limits import is_rate, rate_per_second
from opsq.concurrency.base import POOLS
from opsq.datastore import keys
from opsq.protocol.envelope import Envelope
from opsq.protocol.routing import Binding
from opsq.runtime.process import signal_number
from opsq.worker.commanded import OneChild
from opsq.worker.holdings import held_by
from opsq.worker.panel import NO_REPLY, Panel, State, control_command, inspect_command, nok, ok
from opsq.worker.revocations import stamps_on
from opsq.worker.terms import MOST_CHILDREN

__all__ = ["Panel", "control_command", "inspect_command"]

logger = logging.getLogger("opsq.worker")

#: What a worker answers that has no children to replace.
_ONE_PROCESS = "this worker is one process: its code and its queues are those that it has started with"
#: Until a child that has an order is given the next one (seconds).
AGAIN_S = 0.01


# -- revocations -------------------------------------------------------------------------------------------------------


@control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(state: State, task_id: Any, terminate: bool = False, signal: Any = None, **_: Any) -> Any:
    """Revoke task by task id (or list of ids)."""
    ids = _as_set(task_id)
    signum = signal_number(signal or "TERM") if terminate else None
    revoked.revoke(state.redis, state.key(""), ids)
    if signum is not None:
        found = _terminate(state, signum, lambda message: message.headers.id in ids)
        ended = ", ".join(message.headers.id for message in found)
        return ok(f"terminate: {ended}" if found else "terminate: tasks unknown")
    logger.info("Tasks flagged as revoked: %s", ", ".join(ids))
    return ok(f"tasks {ids} flagged as revoked")


@control_command(variadic="task_id", args=[("signal", str)], signature="<signal> [id1 [id2 [... [idN]]]]")
def terminate(state: State, signal: Any, task_id: Any, **_: Any) -> Any:
    """Terminate task by task id (or list of ids)."""
    return revoke(state, task_id, terminate=True, signal=signal)


@control_command(variadic="headers", signature="[key1=value1 [key2=value2 [... [keyN=valueN]]]]")
def revoke_by_stamped_headers(state: State, headers: Any, terminate: bool = False, signal: Any = None, **_: Any) -> Any:
    """Revoke task by header (or list of headers)."""
    signum = signal_number(signal or "TERM") if terminate else None
    if isinstance(headers, list | tuple):
        headers = dict(each.split("=", 1) for each in headers)
    stamps = {revoked.stamp_text(*stamp) for stamp in revoked.stamps_of(headers)}
    revoked.revoke_stamps(state.redis, state.key(""), headers)
    if signum is None:
        return ok(f"headers {headers} flagged as revoked, but not terminated")
    ended: dict[str, set[Any]] = {}

    def is_meant(message: Envelope) -> bool:
        hit = [stamp for stamp in stamps_on(message.raw) if revoked.stamp_text(*stamp) in stamps]
        for header, value in hit:
            ended.setdefault(header, set()).add(value)
        return bool(hit)

    _terminate(state, signum, is_meant)
    return ok(f"headers {ended} revoked" if ended else f"headers {headers} were not terminated")


def _terminate(state: State, signum: int, is_meant: Callable[[Envelope], bool]) -> list[Envelope]:
    """Have the parent end the tasks that run now and are meant."""
    found = [each for each in held_by(state) if each.state == "active" and is_meant(each.message)]
    for each in found:
        logger.info("Terminating %s (%s)", each.message.headers.id, signum)
        state.in_parent(partial(_end, state, each.slot, each.number, signum))
    return [each.message for each in found]


def _end(state: State, slot: int, number: int, signum: int) -> None:
    """In the parent."""
    children = state.children
    if not isinstance(children, OneChild) and not POOLS[state.worker.plan.setup.pool].many:
        children.terminate(slot, number, signum)
    elif not children.order_end(slot, number, signum):
        state.calls.after(AGAIN_S, partial(_end, state, slot, number, signum))


def _as_set(ids: Any) -> set[str]:
    return {ids} if isinstance(ids, str) else {str(each) for each in ids or ()}


# -- events ------------------------------------------------------------------------------------------------------------


@control_command
def heartbeat(state: State) -> None:
    """Tell worker(s) to send event heartbeat immediately."""
    state.in_lease_thread(state.pulse.call)


@control_command
def enable_events(state: State) -> Any:
    """Tell worker(s) to send task-related events."""
    if state.pulse.never:
        return nok("task events are switched off by the setting worker_send_task_events")
    were_on = state.pulse.tells_of_tasks
    state.in_lease_thread(state.pulse.unmute)
    return ok("task events already enabled" if were_on else "task events enabled")


@control_command
def disable_events(state: State) -> Any:
    """Tell worker(s) to stop sending task-related events."""
    were_on = not (state.pulse.never or state.pulse.muted)
    state.in_lease_thread(state.pulse.mute)
    return ok("task events disabled" if were_on else "task events already disabled")


@control_command
def election(state: State, id: str, topic: str, action: Any = None, **_: Any) -> None:
    """Hold election: nobody stands for one here."""


# -- limits ------------------------------------------------------------------------------------------------------------


@control_command(
    args=[("task_name", str), ("rate_limit", str)], signature="<task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>"
)
def rate_limit(state: State, task_name: str, rate_limit: str | int | float | None, **_: Any) -> Any:
    """Tell worker(s) to modify the rate limit for a task by type."""
    if not is_rate(rate_limit):
        return nok(f"Invalid rate limit string: {rate_limit!r}")
    text, own = str(rate_limit or 0), state.leases.limited.policy.is_own(task_name)
    if own is None:
        logger.error("Rate limit attempt for unknown task %s", task_name)
        return nok("unknown task")
    if not own:
        state.redis.hset(state.key(keys.RATE_LIMITS), task_name, text)
    state.in_lease_thread(lambda: state.leases.change_rate(task_name, text, own))
    lifted = not rate_per_second(rate_limit)
    return ok("rate limit disabled successfully" if lifted else "new rate limit set successfully")


# -- the worker --------------------------------------------------------------------------------------------------------


@control_command
def shutdown(state: State, msg: str = "Got shutdown from remote", **_: Any) -> Any:
    """Shutdown worker(s): what runs may end."""
    logger.warning(msg)
    state.in_parent(lambda: state.worker.ask_to_stop("warm"))
    return NO_REPLY


@control_command(args=[("n", int)], signature="[N=1]")
def pool_grow(state: State, n: int = 1, **_: Any) -> Any:
    """Grow pool by n processes/threads."""
    return _resize(state, n, "pool will grow")


@control_command(args=[("n", int)], signature="[N=1]")
def pool_shrink(state: State, n: int = 1, **_: Any) -> Any:
    """Shrink pool by n processes/threads."""
    return _resize(state, -n, "pool will shrink")


def _resize(state: State, more: int, answer: str) -> Any:
    worker = state.parent
    if worker is None or worker.plan.setup.pool != "prefork":
        return nok("this pool has one process")
    state.in_parent(lambda: worker.sizing.grow(more))
    return ok(answer)


@control_command(args=[("max", int), ("min", int)], signature="[max [min]]")
def autoscale(state: State, max: int | None = None, min: int | None = None, **_: Any) -> Any:
    """Modify autoscale settings."""
    terms, worker = state.record.terms, state.parent
    if worker is None or not terms.scales:
        raise ValueError("Autoscale not enabled")
    most = terms.most if max is None else int(max)
    least = terms.least if min is None else int(min)
    if not 0 <= least <= most <= MOST_CHILDREN or not most:
        raise ValueError(f"cannot scale between {least} and {most} processes")
    state.in_parent(lambda: worker.sizing.resize(least or 1, most))
    return ok(f"autoscale now max={most} min={least}")


@control_command
def pool_restart(state: State, **_: Any) -> Any:
    """Restart execution pool: today's code and settings, as after SIGHUP."""
    if not state.app.conf.worker_pool_restarts:
        raise ValueError("Pool restarts not enabled")
    if state.parent is None:
        return nok(_ONE_PROCESS)
    state.in_parent(state.parent.reload)
    return ok("reload started")


# -- queues ------------------------------------------------------------------------------------------------------------


@control_command(
    args=[("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)],
    signature="<queue> [exchange [type [routing_key]]]",
)
def add_consumer(
    state: State,
    queue: str,
    exchange: str | None = None,
    exchange_type: str | None = None,
    routing_key: str | None = None,
    **_: Any,
) -> Any:
    """Tell worker(s) to consume from task queue by name."""
    kind = exchange_type or "direct"
    if kind not in ("direct", "topic"):
        return nok(f"a queue can be bound to a {kind} exchange only by task_queues, and opsq reload")
    worker = state.parent
    if worker is None:
        return nok(_ONE_PROCESS)
    if exchange:
        post, bound = state.leases.post, Binding(exchange, routing_key or queue, kind)
        state.app.broker.ask_all(announcement(queue, [bound], post.key_prefix, post.priorities))
    if queue not in worker.wanted_queues:
        state.in_parent(lambda: worker.consume(queue, True))
    return ok(f"add consumer {queue}")


@control_command(args=[("queue", str)], signature="<queue>")
def cancel_consumer(state: State, queue: str, **_: Any) -> Any:
    """Tell worker(s) to stop consuming from task queue by name."""
    worker = state.parent
    if worker is None:
        return nok(_ONE_PROCESS)
    queues = worker.wanted_queues
    if queues == [queue]:
        return nok(f"{queue} is the only queue of this worker; shutdown stops it")
    if queue in queues:
        state.in_parent(lambda: worker.consume(queue, False))
    return ok(f"no longer consuming from {queue}")


# -- tasks -------------------------------------------------------------------------------------------------------------


@control_command(
    args=[("task_name", str), ("soft", float), ("hard", float)],
    signature="<task_name> <soft_secs> [hard_secs]",
)
def time_limit(state: State, task_name: str, hard: float | None = None, soft: float | None = None, **_: Any) -> Any:
    """Tell worker(s) to modify the time limit for task by type."""
    if task_name not in state.record.terms.tasks:
        return nok("unknown task")
    state.wait_for_parent(lambda: state.worker.set_time_limits(task_name, soft, hard))
    return ok("time limits set successfully")
