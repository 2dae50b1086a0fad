"""Hearing that something in the schedule was changed, at once, over a connection of its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from opsq.datastore.line import Line
from opsq.datastore.trouble import RedisError, ResponseError

logger = logging.getLogger("celery.beat")


class Notices:
    """A subscription; while it cannot be had, nothing is heard, and the schedule has to be looked at now and then."""

    def __init__(self, url: str, channel: str) -> None:
        self._line, self._channel = Line(url), channel
        self._line.on_push = self._hear
        self._heard = self._refused = False

    def descriptors(self) -> list[int]:
        """What to wait for; connects if need be."""
        if not self.hears and not self._refused:
            self._subscribe()
        return [self._line.fileno()] if self.hears else []

    @property
    def hears(self) -> bool:
        """Whether anything that is said now would be heard."""
        return self._line.fileno() >= 0

    def take(self) -> bool:
        """Whether something was said since the last time; reads what has arrived."""
        try:
            while self.hears and self._line.readable(0):
                self._line.read()
        except (RedisError, OSError):
            self._line.close()
        heard, self._heard = self._heard, False
        return heard

    def close(self) -> None:
        """Hear no more."""
        self._line.close()

    def _subscribe(self) -> None:
        try:
            self._line.send(("SUBSCRIBE", self._channel), ("PING",))
            self._line.receive()  # of PING: the answer to SUBSCRIBE is a push, unless it is an error
        except ResponseError as error:
            logger.warning("beat: changes are seen each second, not heard at once: %s", error)
            self._refused = True
            self._line.close()
        except (RedisError, OSError):
            self._line.close()
        else:
            self._heard = True  # what was said before, nobody heard

    def _hear(self, push: Sequence[Any]) -> None:
        if push and push[0] == b"message":
            self._heard = True
