"""What those held who are gone: workers of this host that were killed, consumers elsewhere whose leases ran out, and
workers of Celery.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

from opsq.broker.consumer import Alive, Consumer
from opsq.broker.leftovers import Leftovers
from opsq.datastore import keys
from opsq.datastore.line import Line
from opsq.datastore.trouble import ResponseError
from opsq.worker import successor
from opsq.worker.post import Post
from opsq.worker.successor import Judge

logger = logging.getLogger("opsq.worker")

#: Between two looks at what Celery's workers hold (seconds).
CELERY_PAUSE_S = 60.0


class Rescue:
    """Takes over in the name of those who are gone, in the thread of the leases."""

    def __init__(self, post: Post, judge: Judge, celery: Leftovers) -> None:
        self.post, self._judge, self._celery = post, judge, celery
        self._next_look = 0.0

    def reap(self, line: Line, expired: Sequence[Sequence[bytes]], workers: Sequence[bytes], until: float) -> None:
        """Take over from consumers whose leases ran out, for each queue; forget workers that are gone.

        `until` (monotonic): then the own leases must be renewed; who is left is told again with that.
        """
        names = {name.decode() for found in expired for name in found}
        ours = f"{self.post.worker_id}:"
        names = {name for name in names if not name.startswith(ours)}
        if names:
            self.leftovers()
        for name in sorted(names):
            queues = [q for q, found in zip(self.post.queues, expired, strict=True) if name.encode() in found]
            if not self.take_over(name, queues, until):
                return
        for worker in workers:
            line.ask("ZREM", self.post.key_prefix + keys.WORKERS, worker)

    def leftovers(self) -> None:
        """Settle what workers of this host have left behind."""
        successor.settle_leftovers(self.post.folder, self.post.url, self._judge, self.consumer)

    def restore_celerys(self, line: Line) -> None:
        """Put back what Celery's workers took and never acknowledged, if it is time to look."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + min(CELERY_PAUSE_S, self._celery.timeout_s / 10)
        try:
            count = self._celery.restore(line)
        except ResponseError as error:
            logger.warning("cannot look for what Celery's workers have left, and will not again: %s", error)
            self._next_look = math.inf
            return
        if count:
            told = "put back %d messages that a Celery worker had taken and not acknowledged within %g s"
            logger.warning(told, count, self._celery.timeout_s)

    def consumer(self, queues: list[str], name: str) -> Consumer:
        """A line to the broker in somebody's name."""
        settler = self._judge.make_settler(queues)
        post, results_db = self.post, settler.results.database
        return Consumer(
            post.url, queues, name, results_db=results_db, key_prefix=post.key_prefix, priorities=post.priorities
        )

    def take_over(self, name: str, queues: list[str], until: float) -> bool:
        """Take over from somebody whose lease ran out; false when time (monotonic) is up before all was taken over."""
        consumer = self.consumer(queues, name)
        count = 0
        try:
            consumer.connect()
            host = name.rsplit(":", 2)[0]
            why = f"{host} was lost, the task may have started"
            while part := successor.take_over(self._judge, consumer, why):
                count += part
                if time.monotonic() > until:
                    return False
            consumer.retire()
        except Alive:
            logger.info("%s is alive after all", name)
        finally:
            consumer.close()
            if count:
                logger.warning("took over %d messages of %s, which was lost", count, name)
        return True
