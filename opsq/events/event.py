"""Events on the wire, as Celery's workers tell them on Redis: their channels, their messages, and how they are read.

An event is a small dict with a type, a time and a clock. Several of tasks travel in one message, as a list.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from opsq.datastore.keys import prefix_of
from opsq.exceptions import DecodeError
from opsq.protocol import compression, jsontypes
from opsq.protocol.delivery_tag import new_delivery_tag

#: Where events go, unless the setting `event_exchange` says otherwise.
EXCHANGE = "celeryev"
#: Commands to workers travel through the setting `control_exchange` and this.
MAILBOX_SUFFIX = ".pidbox"
#: The routing key of several task events in one message.
TASKS = "task.multi"
#: A message with no event in it: publishing it tells how many listen to events of tasks.
NOTHING = b"[]"

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Channels:
    """The names of pub/sub channels in a database, by kombu's rules (wire section 3.5)."""

    db: int
    key_prefix: str = ""
    fanout_prefix: bool | str = True
    fanout_patterns: bool = True

    @classmethod
    def of(cls, db: int, options: Mapping[str, Any] | None) -> Channels:
        """By the setting `broker_transport_options`."""
        told = options or {}
        return cls(
            db,
            prefix_of(told),
            told.get("fanout_prefix", True),
            bool(told.get("fanout_patterns", True)),
        )

    def name(self, exchange: str, routing_key: str = "") -> str:
        """The channel of an exchange and a routing key."""
        prefix = self.fanout_prefix if isinstance(self.fanout_prefix, str) else "/{db}." if self.fanout_prefix else ""
        where = f"{self.key_prefix}{prefix.replace('{db}', str(self.db))}{exchange}"
        return f"{where}/{routing_key}" if routing_key and self.fanout_patterns else where

    def pattern(self, exchange: str) -> str:
        """What to PSUBSCRIBE to, to hear all of an exchange."""
        return self.name(exchange, "*")


class Wrapper:
    """Makes messages of events; what does not change from message to message is made once."""

    def __init__(self, hostname: str, exchange: str = EXCHANGE) -> None:
        """`hostname`: the node name of who tells."""
        self._hostname, self._exchange = hostname, exchange
        self._parts: dict[str, tuple[bytes, bytes]] = {}

    def wrap(self, body: bytes, routing_key: str) -> bytes:
        """The message; `body` is an event, or a list of some, as JSON."""
        before, after = self._parts.get(routing_key) or self._prepare(routing_key)
        encoded = binascii.b2a_base64(body, newline=False)
        return b"".join((before, encoded, after, new_delivery_tag().encode(), b'"}}'))

    def _prepare(self, routing_key: str) -> tuple[bytes, bytes]:
        message = {
            "body": "\0",
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"hostname": self._hostname},
            "properties": {
                "delivery_mode": 1,
                "delivery_info": {"exchange": self._exchange, "routing_key": routing_key},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": "\0",
            },
        }
        before, after, _end = json.dumps(message).encode().split(b"\\u0000")
        self._parts[routing_key] = before, after
        return before, after


class _Headers(msgspec.Struct, gc=False):
    compression: str | None = None


class _Properties(msgspec.Struct, gc=False):
    body_encoding: str | None = None


class _Message(msgspec.Struct, gc=False, rename={"content_type": "content-type"}):
    body: str
    content_type: str = "application/json"
    headers: _Headers = msgspec.field(default_factory=_Headers)
    properties: _Properties = msgspec.field(default_factory=_Properties)


_read_message = msgspec.json.Decoder(_Message).decode


def read(payload: bytes) -> list[Event]:
    """The events of a message. Raises DecodeError when it has none that can be read."""
    found = _body(payload)
    events = found if isinstance(found, list) else [found]
    for event in events:
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise DecodeError("cannot read the event", why="it has no type")
    return events


def _body(payload: bytes) -> Any:
    try:
        message = _read_message(payload)
        if message.content_type != "application/json":
            raise DecodeError("cannot read the event", why=f"its content type is {message.content_type}")
        body = message.body.encode()
        if message.properties.body_encoding == "base64":
            body = base64.b64decode(body)
        if message.headers.compression:
            body = compression.decompress(body, message.headers.compression)
        return jsontypes.loads(body)
    except (msgspec.DecodeError, ValueError, UnicodeError) as error:
        raise DecodeError("cannot read the event", why=str(error)) from None
