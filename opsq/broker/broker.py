"""What producers do with the broker: put messages into queues, once, and make queues known (Celery's bindings too)."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from opsq.broker import exchanges, gathering
from opsq.broker.exchanges import NONE_DECLARED, Declarations, announcement
from opsq.broker.outgoing import (
    CLAIM,
    LUA,
    PUBLISH,
    Claim,
    Command,
    Outgoing,
    claim_command,
    publish_command,
)
from opsq.datastore import keys
from opsq.datastore.connection import client, explain, parse_url
from opsq.datastore.line import packed
from opsq.datastore.lines import Lines
from opsq.datastore.priorities import PRIORITIES, Priorities
from opsq.datastore.trouble import NoScriptError, RedisConnectionError, RedisError, RedisTimeoutError
from opsq.events.event import Channels
from opsq.exceptions import OperationalError, QueueFull
from opsq.protocol import writing

if TYPE_CHECKING:
    import redis

logger = logging.getLogger("opsq.broker")

T = TypeVar("T")

__all__ = ["LUA", "RETRY_POLICY", "Broker", "Outgoing"]

#: Celery's defaults of `task_publish_retry_policy`; times in seconds.
RETRY_POLICY: Mapping[str, Any] = {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}
#: How long a sender waits before it looks again for room in a queue that is full, first and at most (seconds).
ROOM_S = (0.02, 0.5)


class Broker:
    """The producers' side of the broker at `url`."""

    def __init__(
        self,
        url: str,
        key_prefix: str = "",
        priorities: Priorities = PRIORITIES,
        declare: Callable[[], Declarations] = lambda: NONE_DECLARED,
        channels: Channels | None = None,
    ) -> None:
        """`declare`: what the app declares of queues now; `channels`: how those of broadcasts are called."""
        self.url, self.priorities = url, priorities
        self.where = parse_url(url)
        self.key_prefix = key_prefix
        self.channels = channels or Channels(self.where.db, key_prefix)
        self._declare = declare
        #: The list of each queue and priority, once the queue is made known; of this process.
        self._places: dict[tuple[str, int], str] = {}
        self._process = 0
        self._lines = Lines(url)

    @classmethod
    def of(cls, url: str, options: Mapping[str, Any] | None, declare: Callable[[], Declarations]) -> Broker:
        """As the setting `broker_transport_options` says. Raises ImproperlyConfigured."""
        channels = Channels.of(parse_url(url).db, options)
        return cls(url, keys.prefix_of(options), Priorities.of(options), declare, channels)

    @property
    def client(self) -> redis.Redis:
        """This process's pooled client."""
        return client(self.url)

    def key(self, name: str) -> str:
        """A key's name with the global prefix."""
        return self.key_prefix + name

    def publish(self, message: Outgoing, retry_policy: Mapping[str, Any] | None = RETRY_POLICY) -> str | None:
        """Put a message into its queue; None, or the id of the one that has what it claims and stands for it.

        Raises OperationalError when that has failed for good, QueueFull, QueueNotFound. A try whose answer was lost is
        repeated by a script that looks whether the message is there already.
        """
        if message.address is not None:
            return self._publish_to(message, retry_policy)
        if message.claim is not None:
            return self._claim(message, message.claim, retry_policy)
        held = gathering.current()
        if held is not None:
            held.messages.append(message)
        elif message.limit is not None:
            self.publish_many([message], retry_policy)
        else:
            self._with_retries(lambda again: self._publish(message, again), retry_policy)
        return None

    def _publish_to(self, message: Outgoing, retry_policy: Mapping[str, Any] | None) -> str | None:
        """Publish a message to the queues, or the listeners, that its address leads to."""
        if gathering.current() is None or message.claim is not None:
            copies = self.spread([message], retry_policy)
            if len(copies) == 1 and not copies[0].channel:
                return self.publish(copies[0], retry_policy)
        self.publish_many([message], retry_policy)
        return None

    def spread(
        self, messages: Sequence[Outgoing], retry_policy: Mapping[str, Any] | None = RETRY_POLICY
    ) -> list[Outgoing]:
        """The same messages, each at a queue or on a channel. Raises QueueNotFound for one that goes nowhere."""
        return self._with_retries(lambda _again: exchanges.spread(self, messages), retry_policy)[0]

    def publish_many(self, messages: Sequence[Outgoing], retry_policy: Mapping[str, Any] | None = RETRY_POLICY) -> None:
        """Put messages (without claims) into their queues in one round trip; in each list they stand in this order.

        Raises OperationalError when that has failed for good: some may have gone. A try whose answer was lost is
        repeated as `publish` does it. Raises QueueFull; `sent` says how many had gone, from the first one on.
        """
        held = gathering.current()
        if held is not None:
            held.messages.extend(messages)
            return
        numbers: Sequence[int] = range(len(messages))
        if any(message.address is not None for message in messages):
            given = messages
            messages, numbers = self._with_retries(lambda _again: exchanges.spread(self, given), retry_policy)
        waits: Iterator[float] | None = None
        left: Sequence[int] = range(len(messages))
        while left := self._with_retries(lambda again: self._publish_many(messages, left, again), retry_policy):
            waits = waits or self._room_comes(messages[left[0]])
            try:
                time.sleep(next(waits))
            except QueueFull as error:
                error.sent = numbers[left[0]]
                raise

    def _room_comes(self, message: Outgoing) -> Iterator[float]:
        """How long to wait (seconds) each time before a message is tried again. Raises QueueFull in the end."""
        limit = message.limit
        assert limit is not None
        delay_s, most_s = ROOM_S
        until = None if limit.wait_s is None else time.monotonic() + limit.wait_s
        if limit.wait_s != 0:
            logger.warning("the queue %r is full (%d messages): sending waits for room", message.queue, limit.length)
        while until is None or time.monotonic() < until:
            yield delay_s * random.uniform(0.8, 1.2)
            delay_s = min(delay_s * 2, most_s)
        raise QueueFull(
            f"cannot send the task: the queue {message.queue!r} is full",
            why=f"it holds its max_length of {limit.length} messages",
            hint="let workers catch up, raise its max_length in task_queues, or let senders wait (overflow: block)",
        )

    def _claim(self, message: Outgoing, claim: Claim, retry_policy: Mapping[str, Any] | None) -> str | None:
        """Publish a message that claims something. One that takes another's place gets its id."""
        raw, task_id = message.raw, claim.task_id
        waits: Iterator[float] | None = None

        def step(_again: bool) -> tuple[bytes, bytes]:
            place = self.make_known(message.queue, message.priority)
            [(word, holder)] = self._run([claim_command(self, place, message, raw, task_id)])
            return word, holder

        while True:
            word, holder = self._with_retries(step, retry_policy)
            if word in (b"sent", b"replaced", b"there"):
                return None if task_id == claim.task_id else task_id
            if word == b"full":
                waits = waits or self._room_comes(message)
                time.sleep(next(waits))
            elif not claim.debounced:
                return holder.decode()
            else:
                task_id = holder.decode() if word == b"held" else claim.task_id
                raw = message.raw if word == b"gone" else writing.with_id(message.raw, task_id)

    def _with_retries(self, step: Callable[[bool], T], retry_policy: Mapping[str, Any] | None) -> T:
        """Do a step until it works; it is told whether an earlier try may have arrived."""
        again, policy, left = False, RETRY_POLICY, 0
        delay = 0.0
        while True:
            try:
                return step(again)
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
            self._run([publish_command(self, place, [message], again)])
        else:
            self._lines.ask("LPUSH", place, message.raw)

    def _publish_many(self, messages: Sequence[Outgoing], which: Sequence[int], again: bool) -> list[int]:
        """Publish those of the messages with these numbers. A command for each list takes all of its messages, or those
        there is room for; returns the numbers of the others.
        """
        now: dict[str, list[bytes]] = {}
        scripted: dict[str, list[int]] = {}
        told: list[Outgoing] = []
        place_of = self._places_here()
        for number in which:
            message = messages[number]
            if message.channel:
                told.append(message)
                continue
            queue, priority = message.queue, message.priority
            place = place_of.get((queue, priority)) or self.make_known(queue, priority)
            if again or message.due_ms is not None or message.limit is not None or place in scripted:
                scripted.setdefault(place, []).append(number)
            else:
                now.setdefault(place, []).append(message.raw)
        commands: list[Command | bytes] = [packed(b"LPUSH", place.encode(), *raws) for place, raws in now.items()]
        for place, some in scripted.items():
            commands.append(publish_command(self, place, [messages[number] for number in some], again))
        arrived = self._run([*commands, *(("PUBLISH", message.channel, message.raw) for message in told)])
        exchanges.check_heard(told, arrived[len(commands) :])
        arrived = arrived[len(now) : len(commands)]
        return sorted(each for some, count in zip(scripted.values(), arrived, strict=True) for each in some[count:])

    def _run(self, commands: Sequence[Command | bytes]) -> list[Any]:
        """Commands and their answers; scripts that the server has forgotten are sent whole. Raises its errors."""
        answers = self._lines.ask_all(commands)
        for index, answer in enumerate(answers):
            if isinstance(answer, NoScriptError):
                script = CLAIM if commands[index][1] == CLAIM.sha else PUBLISH
                answers[index] = self._lines.ask("EVAL", script.text, *commands[index][2:])
            elif isinstance(answer, Exception):
                raise answer
        return answers

    def make_known(self, queue: str, priority: int) -> str:
        """The list of a queue's messages. Once in each process the queue is made known: Celery's binding, our set."""
        places = self._places_here()
        place = places.get((queue, priority))
        if place is None:
            self._run(announcement(queue, self.declared.bindings(queue), self.key_prefix, self.priorities))
            place = self.key(self.priorities.list_of(queue, priority))
            places[queue, priority] = place
        return place

    @property
    def declared(self) -> Declarations:
        """What the app declares of queues."""
        return self._declare()

    def ask_all(self, commands: Sequence[Command]) -> list[Any]:
        """Commands, none of them a script, and their answers. Raises errors of Redis."""
        return self._run(commands) if commands else []

    def repeat(self, commands: Sequence[Command]) -> list[Any]:
        """Commands that may be given twice, tried as often as a publish, and their answers. Raises OperationalError."""
        return self._with_retries(lambda _again: self._run(commands), RETRY_POLICY)

    def _places_here(self) -> dict[tuple[str, int], str]:
        """The lists of queues that this process has made known."""
        if self._process != os.getpid():
            self._places, self._process = {}, os.getpid()
        return self._places

    def _failed(self, error: Exception) -> OperationalError:
        told = explain(error, self.url)
        return OperationalError(f"cannot send the task: {told.what}", why=told.why, hint=told.hint)
