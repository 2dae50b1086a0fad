"""What follows a run, as messages that are not yet sent: so far, the next try of a task that is retried."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from opsq import _state
from opsq.exceptions import Retry
from opsq.execution.context import Context
from opsq.execution.outcome import FollowUp
from opsq.protocol import codec, envelope, writing
from opsq.protocol.delivery_tag import new_delivery_tag
from opsq.protocol.envelope import Envelope
from opsq.utils.time import make_aware

#: Seconds until the next try when nobody says when (Celery's `default_retry_delay`).
RETRY_DELAY_S = 180.0


def next_try(request: Context, message: Envelope, retry: Retry, embed: Mapping[str, Any]) -> FollowUp:
    """The message of a task's next try (wire section 5.1): the same id and lineage, one retry more, due later."""
    call = dict(retry.call)
    due = _due(call.pop("eta", None), call.pop("countdown", None), retry, request.task_object.app.timezone)
    queue = call.get("queue") or call.get("routing_key") or message.queue
    priority = call.get("priority")
    if priority is None:
        priority = message.properties.priority or 0
    raw = writing.changed(
        writing.unparked(message.raw),
        _headers(request, message, call, due),
        _properties(queue, priority),
    )
    if "args" in call or "kwargs" in call:
        raw = _with_body(raw, message, call, embed)
    return FollowUp(queue, raw, priority, int(due.timestamp() * 1000))


def _due(eta: Any, countdown: Any, retry: Retry, zone: tzinfo) -> datetime:
    """When the next try is due; times without a zone are of the app's."""
    if isinstance(eta, datetime):
        return make_aware(eta, zone)
    if isinstance(eta, str):
        return make_aware(datetime.fromisoformat(eta), zone)
    if countdown is None and isinstance(retry.when, datetime):
        return make_aware(retry.when, zone)
    if countdown is None:
        countdown = retry.when if isinstance(retry.when, int | float) else RETRY_DELAY_S
    return datetime.fromtimestamp(_state.broker_time(), UTC) + timedelta(seconds=countdown)


def _headers(request: Context, message: Envelope, call: Mapping[str, Any], due: datetime) -> dict[str, Any]:
    limit = list(message.headers.timelimit or (None, None))
    if call.get("time_limit") is not None:
        limit[0] = call["time_limit"]
    if call.get("soft_time_limit") is not None:
        limit[1] = call["soft_time_limit"]
    expires = call.get("expires", message.headers.expires)
    if isinstance(expires, int | float):
        expires = datetime.fromtimestamp(_state.broker_time(), UTC) + timedelta(seconds=expires)
    # A message of protocol 1 has these in its body only; without them the headers, and the tries in them, do not count.
    known = {name: getattr(message.headers, name) for name in ("task", "id", "root_id", "group", "group_index")}
    changed = {
        **{name: value for name, value in known.items() if value is not None},
        "retries": call.get("retries", request.retries + 1),
        "eta": due.isoformat(),
        "parent_id": message.headers.id,
        "timelimit": limit,
        "expires": expires.isoformat() if isinstance(expires, datetime) else expires,
        envelope.DELIVERIES: 0,
    }
    changed.update(call.get("headers") or {})
    return changed


def _properties(queue: str, priority: int) -> dict[str, Any]:
    return {
        "delivery_tag": new_delivery_tag(),
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": priority,
    }


def _with_body(raw: bytes, message: Envelope, call: Mapping[str, Any], embed: Mapping[str, Any]) -> bytes:
    """The message with other arguments, written by the serializer that wrote the first ones."""
    args, kwargs = call.get("args"), call.get("kwargs")
    if args is None or kwargs is None:
        first_args, first_kwargs, _ = message.arguments(frozenset({message.content_type}))
        args = first_args if args is None else args
        kwargs = first_kwargs if kwargs is None else kwargs
    about = envelope.about_task(message.headers.task)
    _, _, body = codec.encode((tuple(args), dict(kwargs), dict(embed)), message.content_type, about)
    reprs = {"argsrepr": repr(tuple(args))[: writing.REPR_LIMIT], "kwargsrepr": repr(kwargs)[: writing.REPR_LIMIT]}
    return writing.with_body(writing.changed(raw, {**reprs, "compression": None}), body)
