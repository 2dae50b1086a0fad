"""What those held who are gone: workers of this host that were killed, and consumers elsewhere whose leases ran out."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opsq.broker.consumer import Alive, Consumer
from opsq.datastore import keys
from opsq.datastore.connection import client
from opsq.worker import successor
from opsq.worker.post import Post
from opsq.worker.successor import Judge

logger = logging.getLogger("opsq.worker")


class Rescue:
    """Takes over in the name of those who are gone, in the thread of the leases."""

    def __init__(self, post: Post, judge: Judge) -> None:
        self._post, self._judge = post, judge

    def reap(self, expired: Sequence[Sequence[bytes]], workers: Sequence[bytes]) -> None:
        """Take over from consumers whose leases ran out, for each queue; forget workers that are gone."""
        names = {name.decode() for found in expired for name in found}
        ours = f"{self._post.worker_id}:"
        names = {name for name in names if not name.startswith(ours)}
        if names:
            self.leftovers()
        for name in sorted(names):
            queues = [q for q, found in zip(self._post.queues, expired, strict=True) if name.encode() in found]
            self._take_over(name, queues)
        for worker in workers:
            client(self._post.url).zrem(self._post.key_prefix + keys.WORKERS, worker)

    def leftovers(self) -> None:
        """Settle what workers of this host have left behind."""
        successor.settle_leftovers(self._post.folder, self._post.url, self._judge, self.consumer)

    def consumer(self, queues: list[str], name: str) -> Consumer:
        """A line to the broker in somebody's name."""
        settler = self._judge.make_settler(queues)
        post, results_db = self._post, settler.results.database
        return Consumer(post.url, queues, name, results_db=results_db, key_prefix=post.key_prefix)

    def _take_over(self, name: str, queues: list[str]) -> None:
        consumer = self.consumer(queues, name)
        try:
            consumer.connect()
            host = name.rsplit(":", 2)[0]
            count = successor.take_over(self._judge, consumer, f"{host} was lost, the task may have started")
            consumer.retire()
            if count:
                logger.warning("took over %d messages of %s, which was lost", count, name)
        except Alive:
            logger.info("%s is alive after all", name)
        finally:
            consumer.close()
