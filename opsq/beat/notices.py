"""Hearing that something in the schedule was changed, at once, over a connection of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError

from opsq.datastore.line import Line


class Notices:
    """A subscription; while it cannot be had, nothing is heard, and the schedule is looked at now and then anyway."""

    def __init__(self, url: str, channel: str) -> None:
        self._line, self._channel = Line(url), channel
        self._line.on_push = self._hear
        self._heard = False

    def descriptors(self) -> list[int]:
        """What to wait for; connects if need be."""
        if self._line.fileno() < 0:
            try:
                self._line.send(("SUBSCRIBE", self._channel))
            except (RedisError, OSError):
                self._line.close()
                return []
            self._heard = True  # what was said before, nobody heard
        return [self._line.fileno()]

    @property
    def hears(self) -> bool:
        """Whether anything that is said now would be heard."""
        return self._line.fileno() >= 0

    def take(self) -> bool:
        """Whether something was said since the last time; reads what has arrived."""
        try:
            while self._line.fileno() >= 0 and self._line.readable(0):
                self._line.read()
        except (RedisError, OSError):
            self._line.close()
        heard, self._heard = self._heard, False
        return heard

    def close(self) -> None:
        """Hear no more."""
        self._line.close()

    def _hear(self, push: Sequence[Any]) -> None:
        if push and push[0] == b"message":
            self._heard = True
