"""Whether messages wait too long for the children there are: by how long the heads of the queues have waited.

Asked by the thread of the leases, and only while all children are busy.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from opsq.broker.depths import published_of
from opsq.datastore.server_time import in_ms
from opsq.exceptions import ImproperlyConfigured

logger = logging.getLogger("opsq.worker")

_CELERYS = "celery.worker.autoscale.Autoscaler"
#: A worker with `--autoscale` grows when the first message of a queue has waited longer (seconds).
TOO_LONG_S = 0.25
#: Where a first message does not say when it was sent: when its queue was never found empty for so long (seconds).
NEVER_EMPTY_S = 1.0


class Asker(Protocol):
    """The thread of the leases."""

    def submit(self, job: Callable[[], None]) -> None:
        """Do something with Redis there."""

    def ask_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """In that thread: the answers to commands."""

    def lists(self) -> dict[str, str]:
        """The lists of all queues that are consumed, each with its queue."""


class Autoscaler:
    """Says whether a worker with `--autoscale` starts more children; to be subclassed (`worker_autoscaler`)."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def needs_more(self, waits: Mapping[str, float]) -> bool:
        """Asked about five times a second while all children are busy, in the thread that speaks with Redis: be quick.

        `waits`: how long the first message of each queue has waited (seconds); queues without messages are not in it.
        """
        return any(wait_s >= TOO_LONG_S for wait_s in waits.values())


def autoscaler_of(app: Any) -> Autoscaler:
    """The one that the settings name. Raises ImproperlyConfigured."""
    text = str(app.conf.worker_autoscaler or _CELERYS)
    path = text.replace(":", ".")
    if path == _CELERYS:
        return Autoscaler(app)
    module, _, kind = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), kind)
    except (ImportError, ValueError, AttributeError) as error:
        raise ImproperlyConfigured(f"cannot use worker_autoscaler = {text!r}", why=str(error)) from error
    if not (isinstance(found, type) and issubclass(found, Autoscaler)):
        why = "it is no subclass of opsq.worker.autoscale.Autoscaler"
        raise ImproperlyConfigured(f"cannot use worker_autoscaler = {text!r}", why=why)
    return found(app)


class Heads:
    """The first messages of a worker's queues."""

    def __init__(self, asker: Asker, post: Callable[[Callable[[], None]], None], autoscaler: Autoscaler) -> None:
        """`post`: has something done in the parent's own thread."""
        self._asker, self._post, self._autoscaler = asker, post, autoscaler
        self._since: dict[str, float] = {}
        self._looked_at = 0.0

    def ask(self, then: Callable[[bool], None]) -> None:
        """Find out whether one of them has waited too long, then say so in the parent's thread."""

        def job() -> None:
            lists = self._asker.lists()
            clock, *heads = self._asker.ask_all([("TIME",), *(("LINDEX", name, -1) for name in lists)])
            now_ms = in_ms(clock)
            found = {name: head for name, head in zip(lists, heads, strict=True) if isinstance(head, bytes)}
            waits: dict[str, float] = {}
            for name, wait_s in self._waits(found, now_ms):
                waits[lists[name]] = max(wait_s, waits.get(lists[name], 0.0))
            needed = self._needs_more(waits)
            self._post(lambda: then(needed))

        self._asker.submit(job)

    def _needs_more(self, waits: Mapping[str, float]) -> bool:
        try:
            return bool(self._autoscaler.needs_more(waits))
        except Exception:
            logger.exception("the autoscaler %s failed", type(self._autoscaler).__name__)
            return Autoscaler.needs_more(self._autoscaler, waits)

    def _waits(self, heads: Mapping[str, bytes], now_ms: int) -> Iterator[tuple[str, float]]:
        """How long the first message of each list has waited, as far as that is known."""
        now = time.monotonic()
        known = self._since if now - self._looked_at < NEVER_EMPTY_S else {}
        self._since, self._looked_at = {name: known.get(name, now) for name in heads}, now
        for name, head in heads.items():
            sent_ms = _sent_ms(head)
            if sent_ms is not None:
                yield name, (now_ms - sent_ms) / 1000
            elif now - self._since[name] >= NEVER_EMPTY_S:
                yield name, now - self._since[name]


def _sent_ms(raw: bytes) -> int | None:
    """When a message began to wait (Unix ms); None when it does not say, or was held back until a due time."""
    return None if b'"eta": "' in raw or b'"eta":"' in raw else published_of(raw)
