"""Messages that differ from one another only in ids and arguments: made once as a form, then filled in.

What `writing.build` writes for one call is cut at the places that vary; so a form cannot say anything else than it.
"""

from __future__ import annotations

import uuid
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from typing import Any

from opsq.protocol import writing
from opsq.protocol.delivery_tag import new_delivery_tag
from opsq.protocol.jsontypes import dumps, quoted

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
        self._rest = b"," + dumps(embed) + b"]"

    @classmethod
    def of(cls, embed: Mapping[str, Any], call: Mapping[str, Any]) -> Form | None:
        """From arguments of `writing.build` without ids and arguments; None for calls that no form can hold."""
        if call.get("serializer", "json") not in ("json", "application/json") or call.get("compress"):
            return None
        marks = {name: _HOLE + name for name in _HOLES}
        properties = {name: marks.pop(name) for name in ("correlation_id", "delivery_tag")}
        given = {**marks, "properties": {**(call.get("properties") or {}), **properties}}
        raw = writing.build(args=(), kwargs={}, embed=embed, **{**call, **given})
        body = b2a_base64(dumps(((), {}, embed)), newline=False)
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
        args = tuple(args)
        shown_args = repr(args)
        if kwargs:
            named, shown_named = dumps(kwargs), quoted(writing.shown(repr(kwargs)))
        else:
            named, shown_named = _EMPTY
        body = b2a_base64(b"[%b,%b%b" % (dumps(args), named, self._rest), newline=False)
        own = quoted(task_id)
        return self._template % (
            body,
            own,
            _NULL if group is None else quoted(group),
            _NULL if group_index is None else dumps(group_index),
            own if root_id is None else quoted(root_id),
            _NULL if parent_id is None else quoted(parent_id),
            quoted(shown_args if len(shown_args) <= writing.REPR_LIMIT else writing.shown(shown_args)),
            shown_named,
            own,
            b'"%b"' % new_delivery_tag().encode(),
        )
