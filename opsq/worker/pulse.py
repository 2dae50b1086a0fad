"""A worker's signs of life as events (worker-online, -heartbeat, -offline), and whether somebody listens to its tasks.

Publishing tells how many have heard it. A worker's own events are also heard by Celery's workers (gossip), so that is
asked with a message on the tasks' own channel that holds no event. Who attaches calls all workers (`heartbeat` in the
mailbox) and is answered at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import ResponseError

from opsq.datastore.line import Line
from opsq.events import event
from opsq.events.dispatcher import Sender
from opsq.events.event import NOTHING, TASKS, Wrapper
from opsq.exceptions import DecodeError
from opsq.worker import slots
from opsq.worker.herald import ALWAYS, NEVER, Herald, News
from opsq.worker.slots import Slots

logger = logging.getLogger("opsq.worker")

#: Who calls may begin to listen a moment later (Celery's receivers do): looked at again after this time (seconds).
AGAIN_S = 0.25
#: Commands of the mailbox that ask for a sign of life.
_CALLS = frozenset(("heartbeat", "enable_events"))


class Pulse:
    """The events of a worker's parent, sent in the thread of the leases.

    `count` tells how many tasks run and how many have run. `herald`: events of tasks that were lost.
    """

    def __init__(
        self, news: News, node: str, table: Slots, herald: Herald, count: Callable[[], tuple[int, int]]
    ) -> None:
        self._news, self._node, self._page, self._herald, self._count = news, node, table.words, herald, count
        wrapper = Wrapper(node, news.exchange)
        self._sender = Sender(wrapper, node)
        self._nothing = wrapper.wrap(NOTHING, TASKS)
        self.mailbox = news.channels.name(news.mailbox) if news.mailbox else ""
        self._next_at = 0.0
        self._online = self._called = self._refused = False
        self._page[slots.EVENTS] = news.tasks == ALWAYS

    @property
    def next_at(self) -> float | None:
        """When the next sign of life is due (monotonic seconds); None when none are sent."""
        return self._next_at if self._news.interval_s else None

    def beat(self, line: Line) -> None:
        """A sign of life, and a look whether somebody listens."""
        if not self._news.interval_s:
            return
        self._next_at = time.monotonic() + (AGAIN_S if self._called else self._news.interval_s)
        self._called = False
        heard = self._say(line, "worker-heartbeat" if self._online else "worker-online")
        self._online = True
        if self._news.tasks not in (ALWAYS, NEVER):
            self._page[slots.EVENTS] = bool(heard and self._publish(line, TASKS, self._nothing))

    def tell_lost(self, line: Line) -> None:
        """Tell of the tasks that were lost."""
        message = self._herald.take()
        if message is not None:
            self._publish(line, TASKS, message)

    def bye(self, line: Line) -> None:
        """The last sign of life."""
        if self._news.interval_s and self._online:
            self._say(line, "worker-offline")

    def heard(self, payload: bytes) -> None:
        """A command has come to all workers: whoever attaches is answered at once."""
        try:
            command = event.read_command(payload)
        except DecodeError:
            return
        destination = command.get("destination")
        if command.get("method") in _CALLS and (not destination or self._node in destination):
            self._next_at, self._called = time.monotonic(), True

    def _say(self, line: Line, kind: str) -> int:
        clock = int(self._page[slots.CLOCK]) + 1
        self._page[slots.CLOCK] = clock
        running, done = self._count()
        routing_key, message = self._sender.about_worker(kind, clock, self._news.interval_s, running, done)
        return self._publish(line, routing_key, message)

    def _publish(self, line: Line, routing_key: str, message: bytes) -> int:
        """How many have heard it; 0 when this user may not publish events."""
        try:
            answer: Any = line.ask("PUBLISH", self._news.channel(routing_key), message)
        except ResponseError as error:
            if not self._refused:
                logger.warning("events cannot be sent: %s", error)
            self._refused = True
            return 0
        return int(answer)
