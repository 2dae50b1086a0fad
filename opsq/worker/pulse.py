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

from opsq.datastore.line import Line
from opsq.datastore.trouble import ResponseError
from opsq.events.dispatcher import Sender
from opsq.events.event import NOTHING, TASKS, Wrapper
from opsq.worker import slots
from opsq.worker.herald import ALWAYS, NEVER, Herald, News
from opsq.worker.slots import Slots

logger = logging.getLogger("opsq.worker")

#: A sign of life that nobody hears is sent less often (seconds): who comes to listen calls, or hears the next one.
UNHEARD_S = 6.0
#: Who calls may begin to listen a moment later (Celery's receivers do): looked at again after this time (seconds).
AGAIN_S = 0.25


class Pulse:
    """The events of a worker's parent, sent in the thread of the leases.

    `count` tells how many tasks run and how many have run. `herald`: events of tasks that were lost.
    """

    def __init__(
        self, news: News, node: str, table: Slots, herald: Herald, count: Callable[[], tuple[int, int]]
    ) -> None:
        #: Called when a sign of life was sent.
        self.on_beat: Callable[[], None] = lambda: None
        self._news, self._page, self._herald, self._count = news, table.words, herald, count
        wrapper = Wrapper(node, news.exchange)
        self._sender = Sender(wrapper, node)
        self._nothing = wrapper.wrap(NOTHING, TASKS)
        self.mailbox = news.channels.name(news.mailbox) if news.mailbox else ""
        self._next_at = self._unheard_until = 0.0
        self.muted = False
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
        now, called, self._called = time.monotonic(), self._called, False
        self._next_at = now + (AGAIN_S if called else self._news.interval_s)
        if now < self._unheard_until:
            self.on_beat()
            return
        heard = self._say(line, "worker-heartbeat" if self._online else "worker-online")
        self._online = True
        self._unheard_until = 0.0 if heard or called else now + UNHEARD_S
        self.on_beat()
        if not (self.muted or self._news.tasks in (ALWAYS, NEVER)):
            self._page[slots.EVENTS] = bool(heard and self._publish(line, self._news.channel(TASKS), self._nothing))

    def rides(self, until: float) -> list[tuple[Any, ...]]:
        """The sign of life that is due before then (monotonic seconds) if none was heard lately, to go along with other
        commands, so that it costs no way of its own; its answer is for `rode`."""
        if 0.0 < self._unheard_until <= until and self._online and self._news.interval_s:
            return [("PUBLISH", *self._life("worker-heartbeat"))]
        return []

    def rode(self, answer: Any) -> None:
        """What was answered to it. If somebody heard it, the next one comes at once, and often from then on."""
        heard = self._heard(answer)
        self._unheard_until = 0.0 if heard else time.monotonic() + UNHEARD_S
        if heard:
            self._next_at = time.monotonic()

    def tell_lost(self, line: Line) -> None:
        """Tell of the tasks that were lost."""
        message = self._herald.take()
        if message is not None:
            self._publish(line, self._news.channel(TASKS), message)

    def bye(self, line: Line) -> None:
        """The last sign of life."""
        if self._news.interval_s and self._online:
            self._say(line, "worker-offline")

    # -- what remote commands ask for --------------------------------------------------------------------------------

    @property
    def never(self) -> bool:
        """Whether the settings say that tasks are never told of."""
        return self._news.tasks == NEVER

    @property
    def tells_of_tasks(self) -> bool:
        """Whether events of tasks are sent now."""
        return bool(self._page[slots.EVENTS])

    def call(self) -> None:
        """Somebody has attached: it is told of this worker at once, and tasks are told of if it listens to them."""
        self._next_at, self._unheard_until, self._called = time.monotonic(), 0.0, True

    def mute(self) -> None:
        """Tell nothing of tasks, until `unmute`."""
        self.muted, self._page[slots.EVENTS] = True, False

    def unmute(self) -> None:
        """Tell of tasks again, as the settings say."""
        self.muted, self._page[slots.EVENTS] = False, self._news.tasks == ALWAYS
        self.call()

    def _life(self, kind: str) -> tuple[str, bytes]:
        """A sign of life, with its channel."""
        clock = int(self._page[slots.CLOCK]) + 1
        self._page[slots.CLOCK] = clock
        running, done = self._count()
        routing_key, message = self._sender.about_worker(kind, clock, self._news.interval_s, running, done)
        return self._news.channel(routing_key), message

    def _say(self, line: Line, kind: str) -> int:
        return self._publish(line, *self._life(kind))

    def _publish(self, line: Line, channel: str, message: bytes) -> int:
        """How many have heard it; 0 when this user may not publish events."""
        try:
            return self._heard(line.ask("PUBLISH", channel, message))
        except ResponseError as error:
            return self._heard(error)

    def _heard(self, answer: Any) -> int:
        if isinstance(answer, ResponseError):
            if not self._refused:
                logger.warning("events cannot be sent: %s", answer)
            self._refused = True
            return 0
        return int(answer)
