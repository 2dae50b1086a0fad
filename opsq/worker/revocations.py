"""Tasks that were revoked: the check of the gate that stops them.

The turn that leases messages says whether anything is revoked, in the same step: what was revoked before a message was
taken does not run. While nothing is, a batch costs one look at that; else its ids are asked for, all in one question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from opsq.broker.consumer import Consumer
from opsq.broker.revoked import stamp_text, stamps_of
from opsq.datastore import keys
from opsq.datastore.line import Line
from opsq.datastore.trouble import TROUBLE
from opsq.protocol.envelope import Envelope
from opsq.worker.batch import Held
from opsq.worker.gate import Never

REPLY_S = 5.0
#: In most messages: seen faster than read.
_NO_STAMPS = b'"stamped_headers": null'


class Revocations:
    """The check in a child (`gate.Check`)."""

    def __init__(self, consumer: Consumer, key_prefix: str) -> None:
        self._consumer, self._key = consumer, key_prefix + keys.REVOKED
        self._line = Line(consumer.url, reply_s=REPLY_S)

    @property
    def on(self) -> bool:
        """Whether anything is revoked."""
        return self._consumer.may_be_revoked

    def look(self, messages: Sequence[tuple[Held, Envelope]]) -> Mapping[int, Never]:
        """Those of them that were revoked. Raises RedisError."""
        asked: list[tuple[int, str, str]] = []
        for held, message in messages:
            asked.append((held.number, message.headers.id, ""))
            for header, value in stamps_on(message.raw):
                detail = f" (revoked by header: { ({header: value}) })"
                asked.append((held.number, stamp_text(header, value), detail))
        found: dict[int, Never] = {}
        if asked:
            for (number, _text, detail), until in zip(asked, self._ask([text for _, text, _ in asked]), strict=True):
                if until is not None:
                    found.setdefault(number, Never("revoked", detail))
        return found

    def _ask(self, texts: Sequence[str]) -> list[Any]:
        try:
            answer: list[Any] = self._line.ask("ZMSCORE", self._key, *texts)
        except TROUBLE:
            self._line.close()
            raise
        return answer


class _Headers(msgspec.Struct, gc=False):
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None


class _Stamped(msgspec.Struct, gc=False):
    headers: _Headers


_read = msgspec.json.Decoder(_Stamped).decode


def stamps_on(raw: bytes) -> list[tuple[str, Any]]:
    """The stamps that a message carries."""
    if _NO_STAMPS in raw:
        return []
    try:
        headers = _read(raw).headers
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    stamps = headers.stamps or {}
    return list(stamps_of({name: stamps[name] for name in headers.stamped_headers or () if stamps.get(name)}))
