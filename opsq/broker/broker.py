"""What producers do with the broker: put messages into queues, once, and make queues known (Celery's bindings too)."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from opsq.datastore import keys
from opsq.datastore.connection import client, explain, parse_url
from opsq.datastore.line import Line
from opsq.datastore.scripts import Script
from opsq.exceptions import OperationalError

logger = logging.getLogger("opsq.broker")

LUA = Path(__file__).with_name("lua")
PUBLISH = Script(LUA / "publish.lua")

#: Celery's defaults of `task_publish_retry_policy`; times in seconds.
RETRY_POLICY: Mapping[str, Any] = {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message on its way to a queue; `due_ms` (Unix ms) when it is for later."""

    queue: str
    raw: bytes
    priority: int = 0
    due_ms: int | None = None
    exchange: str = ""
    routing_key: str = ""


class Lines:
    """One connection for each thread that publishes: a third of the cost of taking one from a pool for each message."""

    def __init__(self, url: str) -> None:
        self._url, self._own = url, threading.local()

    def ask(self, *command: Any) -> Any:
        """One command and its answer. A connection that the server has closed meanwhile is made anew first."""
        line = self._line()
        try:
            return line.ask(*command)
        except ResponseError:
            raise
        except BaseException:  # also an interrupt: its answer must not be taken for the next one's
            self._own.__dict__.clear()
            line.close()
            raise

    def _line(self) -> Line:
        own = self._own.__dict__
        line: Line | None = own.get("line")
        if line is None or own["pid"] != os.getpid() or _is_stale(line):
            line = Line(self._url, protocol=2)
            line.connect()
            own.update(line=line, pid=os.getpid())
        return line


def _is_stale(line: Line) -> bool:
    """Whether something can be read although nothing was asked: its end, as a rule."""
    try:
        return line.readable(0)
    except (RedisError, OSError):
        return True


class Broker:
    """The producers' side of the broker at `url`."""

    def __init__(self, url: str, key_prefix: str = "") -> None:
        self.url = url
        self.where = parse_url(url)
        self.key_prefix = key_prefix
        self._announced: set[tuple[int, str]] = set()
        self._lines = Lines(url)

    @property
    def client(self) -> redis.Redis:
        """This process's pooled client."""
        return client(self.url)

    def key(self, name: str) -> str:
        """A key's name with the global prefix."""
        return self.key_prefix + name

    def publish(self, message: Outgoing, retry_policy: Mapping[str, Any] | None = RETRY_POLICY) -> None:
        """Put a message into its queue. Raises OperationalError when that has failed for good.

        A try whose answer was lost is repeated by a script that looks whether the message is there already.
        """
        if retry_policy is None:
            self._publish_or_raise(message, again=False)
            return
        policy = {**RETRY_POLICY, **retry_policy}
        again, delay = False, float(policy["interval_start"])
        left = policy["max_retries"]
        while True:
            try:
                self._publish(message, again)
                return
            except (RedisConnectionError, RedisTimeoutError) as error:
                if left is not None and left <= 0:
                    raise self._failed(error) from error
                again, left = True, None if left is None else left - 1
                time.sleep(delay * random.uniform(0.8, 1.2))
                delay = min(delay + policy["interval_step"], policy["interval_max"])
            except RedisError as error:
                raise self._failed(error) from error

    def tell(self, channel: str, message: bytes) -> None:
        """Publish an event. Nobody may hear it; trouble does not matter to what it tells of."""
        try:
            self._lines.ask("PUBLISH", channel, message)
        except (RedisError, OSError) as error:
            logger.debug("cannot tell on %s: %s", channel, error)

    def publish_many(self, messages: Iterable[Outgoing]) -> None:
        """Put messages into their queues in one pipeline, in order. OperationalError: some may have gone."""
        pipe = self.client.pipeline(transaction=False)
        for message in messages:
            self._announce(message.queue)
            if message.due_ms is None:
                pipe.lpush(self._list(message), message.raw)
            else:
                pipe.eval(PUBLISH.text, 3, *self._publish_keys(message), *self._publish_args(message, again=False))
        try:
            pipe.execute()
        except (RedisError, OSError) as error:
            raise self._failed(error) from error

    def _publish_or_raise(self, message: Outgoing, again: bool) -> None:
        try:
            self._publish(message, again)
        except (RedisError, OSError) as error:
            raise self._failed(error) from error

    def _publish(self, message: Outgoing, again: bool) -> None:
        self._announce(message.queue)
        if again or message.due_ms is not None:
            PUBLISH.run(self.client, self._publish_keys(message), self._publish_args(message, again))
        else:
            self._lines.ask("LPUSH", self._list(message), message.raw)

    def _list(self, message: Outgoing) -> str:
        return self.key(keys.priority_list(message.queue, keys.priority_step(message.priority)))

    def _publish_keys(self, message: Outgoing) -> list[str]:
        queue = message.queue
        return [self._list(message), self.key(keys.delayed(queue)), self.key(keys.consumers(queue))]

    def _publish_args(self, message: Outgoing, again: bool) -> list[Any]:
        due: Any = "" if message.due_ms is None else message.due_ms
        return [message.raw, due, delayed_member(message.raw, message.priority), "1" if again else ""]

    def _announce(self, queue: str) -> None:
        """Once for each queue and process: write its binding as Celery does, and add it to our set of queues."""
        known = (id(self.client), queue)
        if known in self._announced:
            return
        pipe = self.client.pipeline(transaction=False)
        announce_queue(pipe, queue, self.key_prefix)
        pipe.execute()
        self._announced.add(known)

    def _failed(self, error: Exception) -> OperationalError:
        told = explain(error, self.url)
        return OperationalError(f"cannot send the task: {told.what}", why=told.why, hint=told.hint)


def announce_queue(pipe: Any, queue: str, key_prefix: str = "") -> None:
    """Make a queue known: Celery's bindings of its own direct exchange, and our set of queues."""
    member = keys.binding_member(queue, queue)
    pipe.sadd(key_prefix + keys.binding(queue), member)
    pipe.sadd(key_prefix + keys.binding_permanent(queue), member)
    pipe.sadd(key_prefix + keys.QUEUES, queue)


def delayed_member(raw: bytes, priority: int) -> bytes:
    """A message as it stands in the delayed set: the suffix of its list, a bar, its bytes."""
    step = keys.priority_step(priority)
    return (b"%d|" % step if step else b"|") + raw
