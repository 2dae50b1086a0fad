"""A task message as Celery writes it on Redis (protocol 2), read.

Reading takes the fields that decide what happens to a message; everything else in it is read when somebody asks
(`everything`). Protocol 1 messages are read as if they were of protocol 2.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import structs

from opsq.exceptions import ContentDisallowed, DecodeError, ImproperlyConfigured
from opsq.protocol import codec, compression, jsontypes

#: Counts how often a started message was given back (ours; Celery passes it by as a user's header).
DELIVERIES = "x-opsq-deliveries"
#: What a unique message has claimed (ours).
UNIQUE = "x-opsq-unique"

#: What follows a task, when nothing does.
NO_EMBED: Mapping[str, None] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


# Fields stand in the order in which they come in a message: read in that order each is found at once.


class Headers(msgspec.Struct, gc=False, rename={"deliveries": DELIVERIES, "unique": UNIQUE}):
    """The headers that decide what happens to a message."""

    task: str
    id: str
    shadow: str | None = None
    eta: str | None = None
    expires: str | None = None
    group: str | None = None
    group_index: int | None = None
    retries: int | None = 0
    timelimit: tuple[float | None, float | None] | None = None
    root_id: str | None = None
    parent_id: str | None = None
    ignore_result: bool | None = None
    compression: str | None = None
    deliveries: int = 0
    unique: str | None = None


class DeliveryInfo(msgspec.Struct, gc=False):
    """Where a message was sent to."""

    exchange: str | None
    routing_key: str | None
    redelivered: bool | None = None


class Properties(msgspec.Struct, gc=False, kw_only=True):
    """The properties that decide what happens to a message."""

    delivery_info: DeliveryInfo
    priority: int | None = 0
    body_encoding: str | None = None
    delivery_tag: str


class Envelope(
    msgspec.Struct,
    gc=False,
    kw_only=True,
    rename={"content_type": "content-type", "content_encoding": "content-encoding", "lay_in": "x-opsq-lay-in"},
):
    """One task message; `body` is decoded from base64, `raw` holds the message's bytes as they were in the list."""

    body: bytes
    content_encoding: str | None = "utf-8"
    content_type: str
    headers: Headers
    properties: Properties
    raw: bytes = b""
    #: The queue it lay in, if it came through an exchange (ours).
    lay_in: str = ""

    @property
    def queue(self) -> str:
        """The queue it lay in."""
        return self.lay_in or self.properties.delivery_info.routing_key or "celery"

    @property
    def name(self) -> str:
        """The name to show: the shadow name if there is one."""
        return self.headers.shadow or self.headers.task

    def everything(self) -> dict[str, Any]:
        """The whole message, with kombu's markers as values."""
        found: dict[str, Any] = jsontypes.loads(self.raw)
        return found

    def reprs(self) -> tuple[msgspec.Raw, msgspec.Raw]:
        """The arguments as events show them: the headers `argsrepr` and `kwargsrepr`, each as JSON, unread."""
        try:
            headers = _decode_reprs(self.raw).headers
        except (msgspec.DecodeError, UnicodeDecodeError):
            headers = _ReprHeaders()
        return headers.argsrepr, headers.kwargsrepr

    def payload(self, accept: frozenset[str]) -> Any:
        """The decoded body. Raises DecodeError, or ContentDisallowed when its type is not accepted."""
        data = self.body
        if self.headers.compression:
            data = compression.decompress(data, self.headers.compression)
        kind, encoding = self.content_type, self.content_encoding or "utf-8"
        return codec.decode(data, kind, encoding, accept, about_task(self.headers.task))

    def arguments(self, accept: frozenset[str]) -> tuple[list[Any], dict[str, Any], Mapping[str, Any]]:
        """Positional and keyword arguments and what follows. Raises DecodeError, ContentDisallowed."""
        if self.content_type == "application/json" and not self.headers.compression and self.content_type in accept:
            usual = jsontypes.read_as(_decode_body, self.body)
            if usual is not None:
                args, kwargs, embed = usual
                return args, kwargs, NO_EMBED if embed == _NOTHING_FOLLOWS else structs.asdict(embed)
            triple = jsontypes.loads(self.body)
        else:
            triple = self.payload(accept)
        if type(triple) is list and len(triple) == 3:
            args, kwargs, embed = triple
            if type(args) is list and type(kwargs) is dict and type(embed) is dict:
                return args, kwargs, embed
        return _unusual_arguments(triple)


def about_task(name: str) -> bytes:
    """What a signed body is about: it serves for this task only."""
    return b"task " + name.encode("utf-8", "surrogatepass")


class _ReprHeaders(msgspec.Struct, gc=False):
    argsrepr: msgspec.Raw = msgspec.Raw(b'""')
    kwargsrepr: msgspec.Raw = msgspec.Raw(b'""')


class _Reprs(msgspec.Struct, gc=False):
    headers: _ReprHeaders


class _Embed(msgspec.Struct, gc=False):
    callbacks: Any = None
    errbacks: Any = None
    chain: Any = None
    chord: Any = None


_NOTHING_FOLLOWS = _Embed()

#: What a message of protocol 1 may be written in: whose task it is stands in its body, which is read before anybody
#: knows what the app accepts. Pickle would run code.
_READ_OF_PROTOCOL_1 = codec.accepted(("json", "msgpack", "yaml"))

_decode = msgspec.json.Decoder(Envelope).decode
_decode_body = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], _Embed]).decode
_decode_reprs = msgspec.json.Decoder(_Reprs).decode


def parse(raw: bytes) -> Envelope:
    """Read a message. Raises DecodeError that says what is wrong, with the task id, if one is known, as `task_id`."""
    try:
        envelope = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _parse_slowly(raw)
    if envelope.properties.body_encoding != "base64":
        return _parse_slowly(raw)
    envelope.raw = raw
    return envelope


def _parse_slowly(raw: bytes) -> Envelope:
    """What the fast reader refuses: protocol 1, JSON that only Python reads, or a broken message (says how)."""
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DecodeError("cannot read the message", why=f"it is not JSON ({error})") from None
    if not isinstance(message, dict):
        raise DecodeError("cannot read the message", why="it is no JSON object")
    headers = message.get("headers")
    task_id = headers.get("id") if isinstance(headers, dict) else None
    try:
        if not isinstance(headers, dict) or "task" not in headers:
            message = _from_protocol_1(message)
        envelope = msgspec.convert({**message, "body": b""}, Envelope, strict=False)
        envelope.raw = raw
        if not isinstance(message.get("body"), str):
            raise DecodeError("cannot read the message", why="its body is missing or no text")
        envelope.body = _body_bytes(message["body"], envelope.properties.body_encoding)
        f"{envelope.headers.id}{envelope.headers.task}".encode()  # they become parts of keys
        return envelope
    except DecodeError as error:
        raise _with_id(error, task_id) from None
    except msgspec.ValidationError as error:
        raise _with_id(DecodeError("cannot read the message", why=_in_plain_words(error)), task_id) from None
    except UnicodeEncodeError:
        raise _with_id(DecodeError("cannot read the message", why="it holds half a character"), task_id) from None


def _with_id(error: DecodeError, task_id: Any) -> DecodeError:
    error.task_id = task_id if isinstance(task_id, str) and task_id.isprintable() else None  # type: ignore[attr-defined]
    return error


def _in_plain_words(error: msgspec.ValidationError) -> str:
    return str(error).replace("Object missing required field", "it has no").replace("`", "'")


def _from_protocol_1(message: dict[str, Any]) -> dict[str, Any]:
    """A protocol 1 message with the headers that protocol 2 would have; what was written on it since counts."""
    unknown = DecodeError("cannot read the message", why="it has no header 'task', and its body names no task")
    properties, headers = message.get("properties"), message.get("headers") or {}
    if not (isinstance(message.get("body"), str) and isinstance(properties, dict) and isinstance(headers, dict)):
        raise unknown
    try:
        data = _body_bytes(message["body"], properties.get("body_encoding"))
        if headers.get("compression"):
            data = compression.decompress(data, str(headers["compression"]))
        kind, encoding = message.get("content-type"), message.get("content-encoding") or "utf-8"
        body = codec.decode(data, str(kind), str(encoding), _READ_OF_PROTOCOL_1)
    except ContentDisallowed:
        why = f"it has no header 'task', and its body is read as json, msgpack or yaml only, not as {kind}"
        raise DecodeError("cannot read the message", why=why) from None
    except (DecodeError, ImproperlyConfigured):
        raise unknown from None
    if not isinstance(body, dict) or not isinstance(body.get("task"), str) or not isinstance(body.get("id"), str):
        raise unknown
    named = {
        name: body[name]
        for name in ("task", "id", "retries", "eta", "expires", "timelimit")
        if body.get(name) is not None
    }
    named.update(
        group=body.get("taskset") or body.get("group"), group_index=body.get("group_index"), root_id=body["id"]
    )
    return {**message, "headers": {**named, **headers}}


def _unusual_arguments(triple: Any) -> tuple[list[Any], dict[str, Any], Mapping[str, Any]]:
    if isinstance(triple, dict) and "task" in triple:
        return _protocol_1_arguments(triple)
    if not isinstance(triple, list | tuple) or len(triple) != 3:
        raise DecodeError("cannot read the message's body", why="it is not [args, kwargs, embed]")
    args, kwargs, embed = triple
    return _checked(args, kwargs, embed or NO_EMBED)


def _protocol_1_arguments(body: dict[str, Any]) -> tuple[list[Any], dict[str, Any], Mapping[str, Any]]:
    embed = {
        "callbacks": body.get("callbacks"),
        "errbacks": body.get("errbacks"),
        "chain": None,
        "chord": body.get("chord"),
    }
    return _checked(body.get("args") or (), body.get("kwargs") or {}, embed)


def _checked(args: Any, kwargs: Any, embed: Any) -> tuple[list[Any], dict[str, Any], Mapping[str, Any]]:
    if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
        raise DecodeError("cannot read the message's body", why="args is no list or kwargs no mapping")
    if not isinstance(embed, dict):
        raise DecodeError("cannot read the message's body", why="what follows (embed) is no mapping")
    return list(args), kwargs, embed


def _body_bytes(body: str, encoding: str | None) -> bytes:
    if encoding != "base64":
        return body.encode()
    try:
        return binascii.a2b_base64(body)
    except (binascii.Error, ValueError) as error:
        raise DecodeError("cannot read the message's body", why=f"it is not base64 ({error})") from None
