"""Events as Celery's workers publish them on Redis (wire section 6), made up by a test."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

import redis

NODE = "celery@node1"


def envelope(events: Any) -> bytes:
    """One message: a list of events, or a single one."""
    body = base64.b64encode(json.dumps(events).encode()).decode()
    properties = {"delivery_mode": 1, "body_encoding": "base64", "delivery_tag": str(uuid.uuid4()), "priority": 0}
    return json.dumps(
        {
            "body": body,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"hostname": NODE},
            "properties": {**properties, "delivery_info": {"exchange": "celeryev", "routing_key": "task.multi"}},
        }
    ).encode()


def event(kind: str, **fields: Any) -> dict[str, Any]:
    """An event of a worker; `kind` as "task-received"."""
    common = {"hostname": NODE, "utcoffset": 0.0, "pid": 11264, "clock": 1, "timestamp": time.time(), "type": kind}
    return {**common, **fields}


def call(
    name: str = "proj.add",
    end: str = "task-succeeded",
    task_id: str = "",
    at: float = 0.0,
    args: str = "(2, 3)",
    kwargs: str = "{}",
    runtime: float = 0.1,
    **more: Any,
) -> list[dict[str, Any]]:
    """All events of one run that begins at a time (Unix seconds) and ends as `end` says."""
    task_id, at = task_id or str(uuid.uuid4()), at or time.time() - runtime
    root = {"root_id": more.pop("root_id", task_id), "parent_id": more.pop("parent_id", None)}
    received = {"name": name, "args": args, "kwargs": kwargs, "retries": 0, "eta": None, "expires": None, **root}
    ends = {
        "task-succeeded": {"result": "5", "runtime": runtime},
        "task-failed": {"exception": "ValueError('bad')", "traceback": "Traceback: bad\nValueError: bad\n"},
        "task-retried": {"exception": "ConnectionError('away')", "traceback": "Traceback: away\n"},
        "task-revoked": {"terminated": False, "signum": None, "expired": True},
        "task-rejected": {"requeue": False},
    }
    made = [
        event("task-received", uuid=task_id, timestamp=at, **{**received, **more}),
        event("task-started", uuid=task_id, timestamp=at + runtime / 10),
    ]
    if end in ends:
        made.append(event(end, uuid=task_id, timestamp=at + runtime, **{**ends[end], **more}))
    return made


def publish(client: redis.Redis, events: Sequence[dict[str, Any]], db: int = 0, prefix: str = "") -> int:
    """Publish as one `task.multi`; how many heard it."""
    heard: Any = client.publish(f"{prefix}/{db}.celeryev/task.multi", envelope(list(events)))
    return int(heard)


def publish_one(client: redis.Redis, made: dict[str, Any], db: int = 0) -> int:
    """Publish a single event on its own channel, as workers do with their own."""
    heard: Any = client.publish(f"/{db}.celeryev/{made['type'].replace('-', '.')}", envelope(made))
    return int(heard)
