"""Messages that differ from one another only in ids and arguments: made once as a form, then filled in.

What `envelope.build` writes for one call is cut at the places that vary; so a form cannot say anything else than it.
"""

from __future__ import annotations

import uuid
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from typing import Any

from opsq.protocol import envelope, jsontypes

_HOLE = uuid.uuid4().hex
#: In the order in which they stand in a message.
_HOLES = (
    *("id", "group", "group_index", "root_id", "parent_id", "argsrepr", "kwargsrepr", "correlation_id"),
    "delivery_tag",
)
_EMPTY = b"{}", b'"{}"'
_NULL = b"null"


class Form:
    """The message of a call with its ids and arguments left open; only for bodies that are plain JSON."""

    __slots__ = ("_rest", "_template")

    def __init__(self, template: bytes, embed: Mapping[str, Any]) -> None:
        self._template = template
        self._rest = b"," + jsontypes.dumps(embed) + b"]"

    @classmethod
    def of(cls, embed: Mapping[str, Any], call: Mapping[str, Any]) -> Form | None:
        """From arguments of `envelope.build` without ids and arguments; None for calls that no form can hold."""
        if call.get("serializer", "json") not in ("json", "application/json") or call.get("compress"):
            return None
        marks = {name: _HOLE + name for name in _HOLES}
        properties = {name: marks.pop(name) for name in ("correlation_id", "delivery_tag")}
        given = {**marks, "properties": {**(call.get("properties") or {}), **properties}}
        raw = envelope.build(args=(), kwargs={}, embed=embed, **{**call, **given})
        body = b2a_base64(jsontypes.dumps(((), {}, embed)), newline=False)
        holes = [body, *(f'"{_HOLE}{name}"'.encode() for name in _HOLES)]
        places = [raw.find(hole) for hole in holes]
        if any(name in call for name in marks) or places != sorted(places) or -1 in places:
            return None
        template = raw.replace(b"%", b"%%")
        for hole in holes:
            template = template.replace(hole, b"%b", 1)
        return cls(template, embed)

    def fill(
        self,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        root_id: str | None,
        parent_id: str | None,
        group: str | None,
        group_index: int | None,
    ) -> bytes:
        """The text that is pushed to a list. Raises EncodeError."""
        dumps, quoted, args = jsontypes.dumps, jsontypes.quoted, tuple(args)
        if kwargs:
            named, named_repr = dumps(kwargs), quoted(envelope.shown(repr(kwargs)))
        else:
            named, named_repr = _EMPTY
        body = b2a_base64(b"[" + dumps(args) + b"," + named + self._rest, newline=False)
        own = quoted(task_id)
        root = own if root_id is None else quoted(root_id)
        parent = _NULL if parent_id is None else quoted(parent_id)
        of_group = (_NULL, _NULL) if group is None and group_index is None else (dumps(group), dumps(group_index))
        tag = b'"' + envelope.new_delivery_tag().encode() + b'"'
        shown = quoted(envelope.shown(repr(args)))
        return self._template % (body, own, *of_group, root, parent, shown, named_repr, own, tag)
