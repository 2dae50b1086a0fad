"""Remote control over pub/sub, in Celery's words (kombu's pidbox): a command to all workers or some, and their replies.

A command is a message on the channel of the mailbox; who wants replies binds a list of its own for them first. Whoever
publishes here reaches Celery's workers, and Celery's clients reach ours.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from opsq.broker.broker import LUA, Broker
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.datastore.scripts import Script
from opsq.events.event import MAILBOX_SUFFIX, Channels
from opsq.exceptions import DecodeError
from opsq.protocol import codec, compression
from opsq.protocol.delivery_tag import new_delivery_tag

if TYPE_CHECKING:
    import redis

BIND = Script(LUA / "bind_replies.lua")

#: What signed commands and replies are about.
_ABOUT = b"control"
#: One wait for a reply at the server (seconds): a longer time is waited for in parts.
_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Request:
    """A command as it came.

    `destination` names nodes (it wins over `pattern` with its `matcher`; neither: all). `reply_to`: exchange and
    routing key of who waits for replies, None = nobody. `clock`: the sender's Lamport clock.
    """

    method: str
    arguments: dict[str, Any] = field(default_factory=dict)
    destination: Sequence[str] | None = None
    pattern: str | None = None
    matcher: str | None = None
    ticket: str | None = None
    reply_to: tuple[str, str] | None = None
    clock: int = 0


def read(payload: bytes, accept: frozenset[str]) -> Request:
    """A command from the channel of the mailbox. Raises DecodeError, ContentDisallowed."""
    headers, body = _read(payload, accept)
    method, reply_to = body.get("method"), body.get("reply_to")
    if not isinstance(method, str):
        raise DecodeError("cannot read the command", why="it names no method")
    try:
        return Request(
            method,
            dict(body.get("arguments") or {}),
            _names(body.get("destination")),
            _text(body, "pattern"),
            _text(body, "matcher"),
            _text(body, "ticket"),
            (str(reply_to["exchange"]), str(reply_to["routing_key"])) if reply_to else None,
            int(headers.get("clock") or 0),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise DecodeError(f"cannot read the command {method[:100]}", why=str(error)) from None


def _names(said: Any) -> list[str] | None:
    return [said] if isinstance(said, str) else [str(name) for name in said] if said else None


def _text(body: dict[str, Any], name: str) -> str | None:
    return None if body.get(name) is None else str(body[name])


def command(exchange: str, request: Request, expires: float = 0, serializer: str = "json") -> bytes:
    """A command as it is published; `exchange` is the mailbox's. `expires` (Unix seconds): nobody waits any longer."""
    body: dict[str, Any] = {
        "method": request.method,
        "arguments": request.arguments,
        "destination": request.destination,
        "pattern": request.pattern,
        "matcher": request.matcher,
    }
    if request.reply_to is not None:
        where = {"exchange": request.reply_to[0], "routing_key": request.reply_to[1]}
        body.update(ticket=request.ticket, reply_to=where)
    return _wrap(body, serializer, exchange, "", 2, {"clock": request.clock, "expires": expires})


def send_reply(
    server: redis.Redis,
    key_prefix: str,
    request: Request,
    reply: Any,
    clock: int,
    serializer: str,
    separator: str = keys.PRIORITY_SEPARATOR,
) -> bool:
    """Answer a command; false when who asked has gone. What nobody fetches goes by itself.

    `separator`: that of the app's bindings; who asks without knowing the app has written the usual one.
    """
    assert request.reply_to is not None
    exchange, routing_key = request.reply_to
    message = _wrap(reply, serializer, exchange, routing_key, 1, {"ticket": request.ticket, "clock": clock})
    bound = cast("set[bytes]", server.smembers(key_prefix + keys.binding(exchange)))
    lists = [
        key_prefix + parts[2]
        for member in bound
        for each in {separator, keys.PRIORITY_SEPARATOR}
        if len(parts := member.decode().split(each)) == 3 and parts[0] == routing_key
    ]
    pipe = server.pipeline(transaction=True)
    for name in lists:
        pipe.lpush(name, message)
        pipe.expire(name, keys.REPLIES_S)
    pipe.execute()
    return bool(lists)


class Mailbox:
    """The sending side of the mailbox of an app's workers."""

    def __init__(
        self, broker: Broker, channels: Channels, namespace: str, accept: frozenset[str], serializer: str = "json"
    ) -> None:
        """`namespace`: the setting `control_exchange`; `accept`: content types of replies that may be read."""
        self.broker, self._accept, self._serializer = broker, accept, serializer
        self._exchange = namespace + MAILBOX_SUFFIX
        self._reply_exchange = f"reply.{self._exchange}"
        self._channel = channels.name(self._exchange)

    def cast(self, request: Request) -> int:
        """Publish a command to which nobody waits for replies; how many have heard it. Raises BrokerError."""
        with errors(self.broker.url):
            message = command(self._exchange, request, serializer=self._serializer)
            return self.broker.client.publish(self._channel, message)

    def call(
        self,
        request: Request,
        timeout_s: float = 1.0,
        limit: int | None = None,
        on_reply: Callable[[Any], None] | None = None,
    ) -> list[Any]:
        """Publish a command and gather replies until `limit` of them are there, or `timeout_s` passes without one.

        Raises BrokerError.
        """
        oid, ticket = str(uuid.uuid4()), str(uuid.uuid4())
        queue = f"{oid}.{self._reply_exchange}"
        replies, binding = self.broker.key(queue), self.broker.key(keys.binding(self._reply_exchange))
        member = keys.binding_member(oid, queue, self.broker.priorities.separator)
        asked = replace(request, ticket=ticket, reply_to=(self._reply_exchange, oid))
        message = command(self._exchange, asked, time.time() + timeout_s, self._serializer)
        server = self.broker.client
        with errors(self.broker.url):
            deadlines = self.broker.key(keys.BINDING_DEADLINES)
            BIND.run(server, [binding, deadlines], [member, self._reply_exchange, keys.REPLY_BINDING_MS])
            try:
                server.publish(self._channel, message)
                return self._gather(server, replies, ticket, timeout_s, limit, on_reply)
            finally:
                server.srem(binding, member)
                server.delete(replies)

    def _gather(
        self,
        server: redis.Redis,
        replies: str,
        ticket: str,
        timeout_s: float,
        limit: int | None,
        on_reply: Callable[[Any], None] | None,
    ) -> list[Any]:
        found: list[Any] = []
        until = time.monotonic() + timeout_s
        while (limit is None or len(found) < limit) and (left := until - time.monotonic()) > 0:
            popped = cast("tuple[bytes, bytes] | None", server.brpop([replies], timeout=max(min(left, _WAIT_S), 0.01)))
            if popped is None:
                continue
            headers, body = _read(popped[1], self._accept)
            if headers.get("ticket") != ticket:
                continue
            if on_reply is not None:
                on_reply(body)
            found.append(body)
            until = time.monotonic() + timeout_s
        return found


def _read(payload: bytes, accept: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Headers and body of a message of the mailbox."""
    try:
        message = json.loads(payload)
        headers, text = message.get("headers") or {}, message["body"]
        encoding = (message.get("properties") or {}).get("body_encoding")
        data = binascii.a2b_base64(text) if encoding == "base64" else text.encode()
        if headers.get("compression"):
            data = compression.decompress(data, headers["compression"])
        kind, charset = message.get("content-type") or "application/json", message.get("content-encoding") or "utf-8"
        body = codec.decode(data, kind, charset, accept, _ABOUT)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DecodeError("cannot read the message of the mailbox", why=str(error)) from None
    if not isinstance(body, dict):
        raise DecodeError("cannot read the message of the mailbox", why="its body is no object")
    return headers, body


def _wrap(
    body: Any, serializer: str, exchange: str, routing_key: str, delivery_mode: int, headers: dict[str, Any]
) -> bytes:
    content_type, content_encoding, data = codec.encode(body, serializer, _ABOUT)
    return json.dumps(
        {
            "body": base64.b64encode(data).decode(),
            "content-encoding": content_encoding,
            "content-type": content_type,
            "headers": headers,
            "properties": {
                "delivery_mode": delivery_mode,
                "delivery_info": {"exchange": exchange, "routing_key": routing_key},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": new_delivery_tag(),
            },
        }
    ).encode()
