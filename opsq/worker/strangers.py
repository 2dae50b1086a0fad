"""Tasks that are not known here: whether somebody else on the queue knows them, while code is being replaced.

Then a message is put off instead of buried, until it comes to one who knows it: a child of newer code of this worker,
or another worker. Nobody is asked for anything else, so a worker that knows all its tasks never asks.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from opsq._state import broker_time
from opsq.broker.consumer import Consumer
from opsq.datastore import keys
from opsq.datastore.line import Line
from opsq.datastore.trouble import TROUBLE
from opsq.protocol.envelope import Envelope

logger = logging.getLogger("opsq.worker")

REPLY_S = 5.0
#: So long a message is put off, and what the other workers know is believed (seconds).
PUT_OFF_S = 1.0
#: So long after such a message its consumer lets others go first when something comes: of two that wait, the server
#: wakes the one first that connected first, which is the older worker (seconds).
DEFERS_S = 3.0


class Strangers:
    """What one child does with such messages."""

    def __init__(self, consumer: Consumer, is_being_replaced: Callable[[], bool]) -> None:
        """`is_being_replaced`: whether others of its worker may have newer code, now or in a moment."""
        self._consumer, self._is_being_replaced = consumer, is_being_replaced
        self._line = Line(consumer.url, reply_s=REPLY_S)
        #: In a pool of many several messages ask at the same time.
        self._asking = threading.Lock()
        self._known: set[tuple[str, str]] = set()
        self._asked_at = -PUT_OFF_S
        self._told: set[str] = set()

    def due_ms(self, queue: int, message: Envelope) -> int | None:
        """When to look at a message again (Unix ms); None when nobody knows its task. In doubt it is put off."""
        task, name = message.headers.task, self._consumer.queues[queue]
        try:
            if not self._is_being_replaced() and (name, task) not in self._known_elsewhere():
                return None
        except TROUBLE as error:
            logger.warning("cannot ask who knows the task %s, which is put off: %s", task, error)
        if task not in self._told:
            self._told.add(task)
            logger.warning("the task %s is not known here, but may be to newer code or to other workers: put off", task)
        self._consumer.defers_until_s = time.monotonic() + DEFERS_S
        return int((broker_time() + PUT_OFF_S) * 1000)

    def _known_elsewhere(self) -> set[tuple[str, str]]:
        """Queue and task of all that live workers know, as their records say."""
        with self._asking:
            if time.monotonic() - self._asked_at >= PUT_OFF_S:
                self._known = {
                    (queue, task)
                    for record in self._records()
                    for queue in record.get("queues") or ()
                    for task in record.get("tasks") or ()
                }
                self._asked_at = time.monotonic()
            return self._known

    def _records(self) -> list[dict[str, Any]]:
        prefix = self._consumer.key_prefix
        try:
            now_ms = int(broker_time() * 1000)
            alive = self._line.ask("ZRANGEBYSCORE", prefix + keys.WORKERS, now_ms, "+inf")
            names = [prefix + keys.worker(worker_id.decode()) for worker_id in alive]
            found = self._line.ask("MGET", *names) if names else []
        except BaseException:
            self._line.close()  # its answer must not be taken for the next one's
            raise
        return [json.loads(record) for record in found if record is not None]
