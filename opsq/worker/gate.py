"""Before a message runs: now, later or never. So far by its ETA and its expiry; both against this host's clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from opsq.exceptions import InvalidTaskError
from opsq.protocol.envelope import Envelope
from opsq.utils.time import parse_iso


@dataclass(frozen=True, slots=True)
class Later:
    """The message is to run at `due_ms` (Unix ms)."""

    due_ms: int


@dataclass(frozen=True, slots=True)
class Never:
    """The message must not run any more (it has expired)."""

    why: str


def judge(message: Envelope, zone: tzinfo = UTC) -> Later | Never | None:
    """None = now. Raises InvalidTaskError when its times cannot be read. Naive times are of the app's `zone`."""
    headers = message.headers
    now = time.time()
    if headers.expires is not None and _point(headers.expires, "expires", zone) <= now:
        return Never("expired")
    if headers.eta is not None:
        due = _point(headers.eta, "eta", zone)
        if due > now:
            return Later(int(due * 1000))
    return None


def _point(text: str, field: str, zone: tzinfo) -> float:
    try:
        moment: datetime = parse_iso(text, zone)
    except ValueError:
        raise InvalidTaskError("cannot run the task", why=f"its {field} {text!r} is no ISO-8601 time") from None
    return moment.timestamp()
