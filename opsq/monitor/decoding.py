"""From what arrives on the events' channels to events: Celery's envelopes, one event or a list of them.

Whoever can publish can write anything there, so nothing of it is trusted: sizes are bounded, types are checked, and
what cannot be read is counted and left.
"""

from __future__ import annotations

import binascii
import json
import math
from collections.abc import Iterable
from typing import Any

import msgspec

from opsq.exceptions import DecodeError
from opsq.monitor.record import Event

#: A message of 500 events with long arguments and results stays below this; a larger one is not read (bytes).
MESSAGE_LIMIT = 8_000_000
#: How far a sender's clock may be ahead; a later time is taken for ours (seconds).
_AHEAD_S = 3_600
_ID_LIMIT = 255


class _Properties(msgspec.Struct, gc=False):
    body_encoding: str | None = None


class _Headers(msgspec.Struct, gc=False):
    compression: str | None = None


class _Envelope(msgspec.Struct, gc=False, rename={"content_type": "content-type"}):
    body: str
    properties: _Properties
    content_type: str = "application/json"
    headers: _Headers | None = None


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_many = msgspec.json.Decoder(list[Event]).decode
_decode_one = msgspec.json.Decoder(Event).decode


def read(messages: Iterable[bytes], now: float) -> tuple[list[Event], int]:
    """The events of these messages, in order, and how many messages could not be read. `now`: Unix seconds."""
    found: list[Event] = []
    unreadable = 0
    for message in messages:
        try:
            found += _events(message)
        except (msgspec.MsgspecError, DecodeError, ValueError, RecursionError):
            unreadable += 1
    latest = now + _AHEAD_S
    for event in found:
        if not 0 < event.timestamp < latest:
            event.timestamp = now
    return [event for event in found if _usable(event)], unreadable


def _events(message: bytes) -> list[Event]:
    if len(message) > MESSAGE_LIMIT:
        raise DecodeError("a message of events is too large")
    envelope = _decode_envelope(message)
    if envelope.content_type != "application/json" or (envelope.headers and envelope.headers.compression):
        raise DecodeError("events are read as plain JSON only")
    encoded = envelope.properties.body_encoding == "base64"
    body = binascii.a2b_base64(envelope.body) if encoded else envelope.body.encode()
    try:
        return _decode_many(body) if body[:1] == b"[" else [_decode_one(body)]
    except msgspec.MsgspecError:
        return _one_by_one(body)


def _one_by_one(body: bytes) -> list[Event]:
    """Events of which some have fields of other types than Celery's: what does not fit is left out."""
    told: Any = json.loads(body)
    found = []
    for each in told if isinstance(told, list) else [told]:
        if isinstance(each, dict) and isinstance(each.get("type"), str):
            found.append(_converted(each))
    return found


def _converted(told: dict[str, Any]) -> Event:
    fitting = {}
    for field in msgspec.structs.fields(Event):
        if field.name in told:
            try:
                fitting[field.name] = msgspec.convert(told[field.name], field.type)
            except msgspec.ValidationError:
                continue
    return Event(**fitting)


def _usable(event: Event) -> bool:
    if event.runtime is not None and not (math.isfinite(event.runtime) and event.runtime >= 0):
        event.runtime = None
    if event.type.startswith("task-"):
        return bool(event.uuid) and len(event.uuid or "") <= _ID_LIMIT
    return bool(event.hostname)
