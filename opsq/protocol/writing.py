"""A task message as Celery writes it on Redis (protocol 2), written: from a call, or from a message that is there."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from opsq.protocol import codec, compression, jsontypes
from opsq.protocol.delivery_tag import new_delivery_tag
from opsq.protocol.envelope import NO_EMBED, about_task

#: The longest text of arguments that headers hold (characters).
REPR_LIMIT = 1024
#: Where Celery's `rpc` results would go; nothing reads it here.
REPLY_TO = str(uuid.uuid4())

#: How a message begins that has waited for its limits and was put back into its queue (ours; no reader looks there).
PARKED = b'{"x-opsq-parked": 1, '


def build(
    *,
    task: str,
    id: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    embed: Mapping[str, Any] = NO_EMBED,
    queue: str,
    exchange: str = "",
    routing_key: str | None = None,
    priority: int = 0,
    serializer: str = "json",
    compress: str | None = None,
    headers: Mapping[str, Any] | None = None,
    eta: str | None = None,
    expires: str | None = None,
    retries: int = 0,
    timelimit: tuple[float | None, float | None] = (None, None),
    root_id: str | None = None,
    parent_id: str | None = None,
    group: str | None = None,
    group_index: int | None = None,
    shadow: str | None = None,
    origin: str = "",
    ignore_result: bool | None = None,
    argsrepr: str | None = None,
    kwargsrepr: str | None = None,
    reply_to: str | None = None,
    expiration: str | None = None,
    replaced_task_nesting: int = 0,
    stamped_headers: Sequence[str] | None = None,
    stamps: Mapping[str, Any] | None = None,
    properties: Mapping[str, Any] | None = None,
) -> bytes:
    """The text that is pushed to a list. `headers` are the user's own; `timelimit` is (hard, soft), seconds."""
    content_type, content_encoding, body = codec.encode((args, kwargs, embed), serializer, about_task(task))
    all_headers = {
        "lang": "py",
        "task": task,
        "id": id,
        "shadow": shadow,
        "eta": eta,
        "expires": expires,
        "group": group,
        "group_index": group_index,
        "retries": retries,
        "timelimit": timelimit,
        "root_id": root_id or id,
        "parent_id": parent_id,
        "argsrepr": shown(repr(tuple(args)) if argsrepr is None else argsrepr),
        "kwargsrepr": shown(repr(kwargs) if kwargsrepr is None else kwargsrepr),
        "origin": origin,
        "ignore_result": ignore_result,
        "replaced_task_nesting": replaced_task_nesting,
        "stamped_headers": stamped_headers,
        "stamps": stamps or {},
    }
    if compress:
        all_headers["compression"], body = compression.compress(body, compress)
    if headers:
        all_headers.update(headers)
    all_properties = {
        "correlation_id": id,
        "reply_to": reply_to or REPLY_TO,
        "delivery_mode": 2,
        "delivery_info": {"exchange": exchange, "routing_key": queue if routing_key is None else routing_key},
        "priority": priority,
        "body_encoding": "base64",
        "delivery_tag": new_delivery_tag(),
    }
    if expiration is not None:
        all_properties["expiration"] = expiration
    if properties:
        all_properties.update(properties)
    return jsontypes.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": content_encoding,
            "content-type": content_type,
            "headers": all_headers,
            "properties": all_properties,
        }
    )


def shown(text: str) -> str:
    """A representation of arguments as headers hold it, cut."""
    return text if len(text) <= REPR_LIMIT else text[: REPR_LIMIT - 3] + "..."


def changed(raw: bytes, headers: Mapping[str, Any], properties: Mapping[str, Any] | None = None) -> bytes:
    """The same message with some headers and properties replaced; everything else stays as it is."""
    message = json.loads(raw)
    message["headers"] = {**message["headers"], **headers}
    if properties:
        message["properties"] = {**message["properties"], **properties}
    return json.dumps(message).encode()


def with_id(raw: bytes, task_id: str) -> bytes:
    """The same message under another id."""
    headers = json.loads(raw)["headers"]
    root_id = task_id if headers["root_id"] == headers["id"] else headers["root_id"]
    return changed(raw, {"id": task_id, "root_id": root_id}, {"correlation_id": task_id})


def parked(raw: bytes) -> bytes:
    """The same message, marked as one that was here before those that wait for its limits."""
    return raw if raw.startswith(PARKED) else PARKED + raw.lstrip()[1:]


def unparked(raw: bytes) -> bytes:
    """The same message without that mark."""
    return b"{" + raw[len(PARKED) :] if raw.startswith(PARKED) else raw


def with_body(raw: bytes, body: bytes) -> bytes:
    """The same message with another body (bytes of the serializer; not compressed)."""
    message = json.loads(raw)
    message["body"] = base64.b64encode(body).decode()
    message["properties"]["body_encoding"] = "base64"
    return json.dumps(message).encode()
