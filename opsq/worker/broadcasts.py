"""What a worker hears of broadcasts goes into queues of its own, from which it is taken like anything else.

On Redis a broadcast is published, and only who listens at that moment gets it. In the worker's queue it is safe: should
the worker be killed, the next one of the same node name runs it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opsq.datastore import keys
from opsq.datastore.line import Line
from opsq.datastore.trouble import ResponseError
from opsq.events.event import Channels
from opsq.exceptions import DecodeError
from opsq.protocol.envelope import parse
from opsq.protocol.routing import Binding
from opsq.worker.post import Post

logger = logging.getLogger("opsq.worker")

#: Broadcasts that wait in memory while the broker takes nothing; the oldest are given up first.
MOST = 10_000
#: So many of the latest are remembered: what is published twice, on two channels or after a lost answer, comes once.
REMEMBERED = 1_000

Command = tuple[Any, ...]


class Broadcasts:
    """Those that one worker hears, over the line of its leases."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        #: The queue of each pattern that is listened to.
        self._queues: dict[bytes, str] = {}
        self._heard: deque[tuple[str, bytes]] = deque(maxlen=MOST)
        self._latest: deque[tuple[str, int]] = deque(maxlen=REMEMBERED)

    def listen(self, line: Line, post: Post, anew: bool = False) -> None:
        """Listen to what its queues say (`anew`: over a new connection). Raises errors of Redis."""
        wanted = self._patterns(post)
        gone = [] if anew else [pattern for pattern in self._queues if pattern not in wanted]
        fresh = [pattern for pattern in wanted if anew or pattern not in self._queues]
        self._queues = wanted
        for word, patterns in (("PSUBSCRIBE", fresh), ("PUNSUBSCRIBE", gone)):
            if not patterns:
                continue
            line.send((word, *patterns), ("PING",))  # confirmations are pushes, a refusal is an answer
            try:
                line.receive()
            except ResponseError as error:
                logger.error("cannot listen to broadcasts: %s", error)
                line.receive()

    def _patterns(self, post: Post) -> dict[bytes, str]:
        """Of each exchange its channel and those of all its routing keys: a fanout does not look at them."""
        found = {}
        for queue, exchange in own_broadcasts(post.queues, post.bindings).items():
            name = keys.as_pattern(self._channels.name(exchange))
            found[name.encode()] = queue
            if self._channels.fanout_patterns:
                found[f"{name}/*".encode()] = queue
        return found

    def hear(self, pattern: bytes, raw: bytes) -> None:
        """Something was published."""
        queue = self._queues.get(pattern)
        if queue is None:
            return
        seen = queue, hash(raw)
        if seen not in self._latest:
            self._latest.append(seen)
            self._heard.append((queue, raw))

    def keep(self, ask_all: Callable[[Sequence[Command]], list[Any]], post: Post) -> None:
        """Put what was heard into its queues. What the broker does not take now is kept for the next time."""
        while self._heard:
            batch = list(self._heard)
            answers = ask_all([("LPUSH", _list_of(post, queue, raw), raw) for queue, raw in batch])
            for _ in batch:
                self._heard.popleft()
            refused = [each for each, answer in zip(batch, answers, strict=True) if isinstance(answer, Exception)]
            if refused:
                logger.error("cannot keep %d broadcasts, trying again: %s", len(refused), answers[-1])
                self._heard.extendleft(reversed(refused))
                return

    @staticmethod
    def farewell(post: Post) -> list[Command]:
        """What takes the queues of a worker that ends out of the bindings of their exchanges."""
        found: list[Command] = []
        for queue in own_broadcasts(post.queues, post.bindings):
            for each in post.bindings[queue]:
                member = keys.binding_member(each.routing_key, queue, post.priorities.separator, each.pattern)
                for name in (keys.binding(each.exchange), keys.binding_permanent(each.exchange)):
                    found.append(("SREM", post.key_prefix + name, member))
        return found


def own_broadcasts(queues: Sequence[str], bindings: Mapping[str, Sequence[Binding]]) -> dict[str, str]:
    """Those of some queues that hold broadcasts, and the exchange of each."""
    told = [(name, each) for name in queues for each in bindings.get(name, ())]
    return {name: each.exchange for name, each in told if each.type == "fanout"}


def _list_of(post: Post, queue: str, raw: bytes) -> str:
    """The list of its priority; what cannot be read is looked at, and buried, by who takes it."""
    try:
        priority = parse(raw).properties.priority or 0
    except DecodeError:
        priority = 0
    return post.key_prefix + post.priorities.list_of(queue, priority)
