"""Hears the events of all workers, opsq's and Celery's, on a connection of its own; calls them when it has attached."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from opsq.datastore.line import Line
from opsq.datastore.trouble import TROUBLE
from opsq.events import event
from opsq.events.event import EXCHANGE, MAILBOX_SUFFIX, Channels, Event, Wrapper
from opsq.exceptions import DecodeError
from opsq.runtime.backoff import delay_s

logger = logging.getLogger("opsq.events")

#: Between two tries to connect anew (seconds): the first one, the longest.
PAUSE_S = (0.2, 5.0)
#: A connection on which nothing came is asked for a sign of life after this time (seconds).
QUIET_S = 10.0


class Receiver:
    """The events that are published from now on.

    `unreadable` counts messages that could not be read. `trouble` says why nothing is heard, if nothing is.
    """

    def __init__(
        self, url: str, channels: Channels, exchange: str = EXCHANGE, control_exchange: str = "celery"
    ) -> None:
        self._url, self._pattern = url, channels.pattern(exchange)
        self._mailbox = channels.name(control_exchange + MAILBOX_SUFFIX)
        self._call = Wrapper("", control_exchange + MAILBOX_SUFFIX).wrap(_HEARTBEAT, "")
        self._payloads: list[bytes] = []
        self.unreadable = 0
        self.trouble = ""

    def listen(self, tick_s: float) -> Iterator[list[Event]]:
        """Events as they come, together what has come together; an empty list when nothing came for `tick_s` seconds.

        Raises RedisError when the first connection cannot be made; later ones are made anew for as long as it
        takes.
        """
        line, first, failures = Line(self._url), True, 0
        line.on_push = self._on_push
        while True:
            try:
                self._attach(line)
                first, failures, self.trouble = False, 0, ""
                yield from self._hear(line, tick_s)
            except TROUBLE as error:
                line.close()
                if first:
                    raise
                self.trouble = str(error) or type(error).__name__
                yield []
                failures += 1
                time.sleep(delay_s(failures, first_s=PAUSE_S[0], most_s=PAUSE_S[1]))
            finally:
                line.close()

    def _attach(self, line: Line) -> None:
        """Its confirmation is a push, its refusal an answer: the answer to PING comes after either."""
        line.connect()
        line.send(("PSUBSCRIBE", self._pattern), ("PING",))
        line.receive()
        line.ask("PUBLISH", self._mailbox, self._call)

    def _hear(self, line: Line, tick_s: float) -> Iterator[list[Event]]:
        heard = time.monotonic()
        while True:
            if line.readable(0 if self._payloads else tick_s):
                line.read()
                heard = time.monotonic()
            elif time.monotonic() - heard > QUIET_S:
                line.ask("PING")
                heard = time.monotonic()
            yield self._take()

    def _take(self) -> list[Event]:
        payloads, self._payloads = self._payloads, []
        found: list[Event] = []
        for payload in payloads:
            try:
                found += event.read(payload)
            except DecodeError:
                self.unreadable += 1
        return found

    def _on_push(self, push: Sequence[Any]) -> None:
        if push[0] == b"pmessage":
            self._payloads.append(push[3])


_HEARTBEAT = json.dumps(
    {"method": "heartbeat", "arguments": {}, "destination": None, "pattern": None, "matcher": None}
).encode()
