"""What producers do with the broker: put messages into queues, once, and make queues known (Celery's bindings too)."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from opsq.broker import gathering
from opsq.datastore import keys
from opsq.datastore.connection import client, explain, parse_url
from opsq.datastore.keys import PRIORITIES, Priorities
from opsq.datastore.line import Line
from opsq.datastore.scripts import Script
from opsq.exceptions import OperationalError

logger = logging.getLogger("opsq.broker")

LUA = Path(__file__).with_name("lua")
PUBLISH = Script(LUA / "publish.lua")

#: Celery's defaults of `task_publish_retry_policy`; times in seconds.
RETRY_POLICY: Mapping[str, Any] = {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}


class Outgoing(msgspec.Struct, frozen=True, gc=False):
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
            self._drop(line)
            raise

    def ask_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Commands in one write, and their answers; what the server refuses is an error among them."""
        line = self._line()
        answers: list[Any] = []
        try:
            line.send(*commands)
            while len(answers) < len(commands):
                try:
                    answers.append(line.receive())
                except ResponseError as error:
                    answers.append(error)
        except BaseException:
            self._drop(line)
            raise
        return answers

    def _drop(self, line: Line) -> None:
        self._own.__dict__.clear()
        line.close()

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

    def __init__(self, url: str, key_prefix: str = "", priorities: Priorities = PRIORITIES) -> None:
        self.url, self.priorities = url, priorities
        self.where = parse_url(url)
        self.key_prefix = key_prefix
        #: The list of each queue and priority, once the queue is made known; of this process.
        self._places: dict[tuple[str, int], str] = {}
        self._process = 0
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
        held = gathering.current()
        if held is not None:
            held.messages.append(message)
            return
        self._with_retries(lambda again: self._publish(message, again), retry_policy)

    def publish_many(self, messages: Sequence[Outgoing], retry_policy: Mapping[str, Any] | None = RETRY_POLICY) -> None:
        """Put messages into their queues in one round trip; in each list they stand in this order.

        Raises OperationalError when that has failed for good: some may have gone. A try whose answer was lost is
        repeated as `publish` does it.
        """
        held = gathering.current()
        if held is not None:
            held.messages.extend(messages)
            return
        self._with_retries(lambda again: self._publish_many(messages, again), retry_policy)

    def _with_retries(self, step: Callable[[bool], None], retry_policy: Mapping[str, Any] | None) -> None:
        """Do a step until it works; it is told whether an earlier try may have arrived."""
        again, policy, left = False, RETRY_POLICY, 0
        delay = 0.0
        while True:
            try:
                step(again)
                return
            except (RedisConnectionError, RedisTimeoutError) as error:
                if retry_policy is None:
                    raise self._failed(error) from error
                if not again:
                    policy = {**RETRY_POLICY, **retry_policy}
                    again, left, delay = True, policy["max_retries"], float(policy["interval_start"])
                if left is not None and left <= 0:
                    raise self._failed(error) from error
                left = None if left is None else left - 1
                time.sleep(delay * random.uniform(0.8, 1.2))
                delay = min(delay + policy["interval_step"], policy["interval_max"])
            except (RedisError, OSError) as error:
                raise self._failed(error) from error

    def tell(self, channel: str, messages: Sequence[bytes]) -> None:
        """Publish events. Nobody may hear them; trouble does not matter to what they tell of."""
        try:
            self._lines.ask_all([("PUBLISH", channel, message) for message in messages])
        except (RedisError, OSError) as error:
            logger.debug("cannot tell on %s: %s", channel, error)

    def _publish(self, message: Outgoing, again: bool) -> None:
        place = self.make_known(message.queue, message.priority)
        if again or message.due_ms is not None:
            self._run([self._script(place, [message], again)])
        else:
            self._lines.ask("LPUSH", place, message.raw)

    def _publish_many(self, messages: Sequence[Outgoing], again: bool) -> None:
        """A command for each list: it takes all of its messages, or none."""
        now: dict[str, list[bytes]] = {}
        scripted: dict[str, list[Outgoing]] = {}
        for message in messages:
            place = self.make_known(message.queue, message.priority)
            if again or message.due_ms is not None or place in scripted:
                scripted.setdefault(place, []).append(message)
            else:
                now.setdefault(place, []).append(message.raw)
        commands: list[tuple[Any, ...]] = [("LPUSH", place, *raws) for place, raws in now.items()]
        self._run([*commands, *(self._script(place, some, again) for place, some in scripted.items())])

    def _run(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Commands and their answers; scripts that the server has forgotten are sent whole. Raises its errors."""
        answers = self._lines.ask_all(commands)
        for index, answer in enumerate(answers):
            if isinstance(answer, NoScriptError):
                answers[index] = self._lines.ask("EVAL", PUBLISH.text, *commands[index][2:])
            elif isinstance(answer, Exception):
                raise answer
        return answers

    def _script(self, place: str, messages: Sequence[Outgoing], again: bool) -> tuple[Any, ...]:
        """The command that publishes messages of one list, each for now or for later."""
        first = messages[0]
        found = place, self.key(keys.delayed(first.queue)), self.key(keys.consumers(first.queue))
        opening = "1" if again else "", self.priorities.suffix(first.priority)
        words: list[Any] = []
        for message in messages:
            words += ("" if message.due_ms is None else message.due_ms, message.raw)
        return ("EVALSHA", PUBLISH.sha, len(found), *found, *opening, *words)

    def make_known(self, queue: str, priority: int) -> str:
        """The list of a queue's messages. Once in each process the queue is made known: Celery's binding, our set."""
        if self._process != os.getpid():
            self._places, self._process = {}, os.getpid()
        place = self._places.get((queue, priority))
        if place is None:
            pipe = self.client.pipeline(transaction=False)
            announce_queue(pipe, queue, self.key_prefix, self.priorities)
            pipe.execute()
            place = self.key(self.priorities.list_of(queue, priority))
            self._places[queue, priority] = place
        return place

    def _failed(self, error: Exception) -> OperationalError:
        told = explain(error, self.url)
        return OperationalError(f"cannot send the task: {told.what}", why=told.why, hint=told.hint)


def announce_queue(pipe: Any, queue: str, key_prefix: str = "", priorities: Priorities = PRIORITIES) -> None:
    """Make a queue known: Celery's bindings of its own direct exchange, and our set of queues."""
    member = keys.binding_member(queue, queue, priorities.separator)
    pipe.sadd(key_prefix + keys.binding(queue), member)
    pipe.sadd(key_prefix + keys.binding_permanent(queue), member)
    pipe.sadd(key_prefix + keys.QUEUES, queue)
