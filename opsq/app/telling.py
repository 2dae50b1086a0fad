"""Who hears of calls that are sent: receivers of the signals before and after, and listeners to the event task-sent."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from opsq import signals
from opsq.app.routes import Destination
from opsq.broker.outgoing import Outgoing
from opsq.events.dispatcher import Sender
from opsq.events.event import Channels, Wrapper
from opsq.protocol.routing import Queue
from opsq.protocol.writing import shown

if TYPE_CHECKING:
    from opsq.app.base import App

_OF_HEADERS = ("root_id", "parent_id", "retries", "eta", "expires")


def tell_before(
    name: str, task_id: str, body: Any, place: Destination, call: dict[str, Any], policy: Mapping[str, Any] | None
) -> None:
    """The signal `before_task_publish`. Receivers may change headers and properties: they are put into `call`."""
    headers = _headers(name, task_id, body, call)
    properties = {"correlation_id": task_id, "priority": call["priority"], **call["properties"]}
    where = {"exchange": place.exchange, "routing_key": place.routing_key}
    queues = [Queue(place.queue, place.exchange, place.routing_key)] if place.queue else []
    signals.before_task_publish.send(
        name, body=body, headers=headers, properties=properties, declare=queues, retry_policy=policy, **where
    )
    call["headers"], call["properties"] = headers, properties


def tell_after(name: str, task_id: str, body: Any, place: Destination, call: Mapping[str, Any]) -> None:
    """The signals `after_task_publish` and, of old programs, `task_sent`."""
    where = {"exchange": place.exchange, "routing_key": place.routing_key}
    signals.after_task_publish.send(name, body=body, headers=_headers(name, task_id, body, call), **where)
    told = {"task": name, "args": body[0], "kwargs": body[1], "eta": call.get("eta"), "taskset": call.get("group")}
    signals.task_sent.send(name, task_id=task_id, **told)


class SentEvents:
    """Tells listeners of each call that was sent (the setting `task_send_sent_event`)."""

    def __init__(self, app: App) -> None:
        conf, hostname = app.conf, f"gen{os.getpid()}@{socket.gethostname()}"
        channels = Channels.of(app.broker.where.db, conf.broker_transport_options)
        self._app, self._sender = app, Sender(Wrapper(hostname, conf.event_exchange), hostname)
        self._channel = channels.name(conf.event_exchange, "task.sent")
        self._clock = 0

    def tell(self, sent: Iterable[tuple[str, Outgoing, Destination]]) -> None:
        """Of calls by their task's name, message and place."""
        messages = []
        for name, message, place in sent:
            headers = json.loads(message.raw)["headers"]
            told = {"uuid": headers["id"], **{key: headers[key] for key in _OF_HEADERS}, "name": name}
            told.update(args=headers["argsrepr"], kwargs=headers["kwargsrepr"])
            told.update(queue=place.queue or None, exchange=place.exchange, routing_key=place.routing_key)
            self._clock += 1
            messages.append(self._sender.message("task-sent", self._clock, **told)[1])
        self._app.broker.tell(self._channel, messages)


def _headers(name: str, task_id: str, body: Any, call: Mapping[str, Any]) -> dict[str, Any]:
    """The headers that a message is about to get, as signals tell them."""
    same = {
        key: call.get(key)
        for key in (
            *("shadow", "eta", "expires", "group", "group_index", "parent_id", "ignore_result"),
            "stamped_headers",
        )
    }
    args, kwargs = call.get("argsrepr"), call.get("kwargsrepr")
    return {
        "lang": "py",
        "task": name,
        "id": task_id,
        **same,
        "retries": call.get("retries", 0),
        "timelimit": call["timelimit"],
        "root_id": call.get("root_id") or task_id,
        "origin": call["origin"],
        "argsrepr": shown(repr(tuple(body[0]))) if args is None else args,
        "kwargsrepr": shown(repr(body[1])) if kwargs is None else kwargs,
        "replaced_task_nesting": call.get("replaced_task_nesting", 0),
        "stamps": call.get("stamps") or {},
        **(call.get("headers") or {}),
    }
