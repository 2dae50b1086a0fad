"""Messages that leave a queue without being run: moved to another one, or thrown away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from opsq.broker.broker import LUA, Broker
from opsq.broker.depths import states
from opsq.broker.lanes import lanes
from opsq.broker.limits import LANE
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.datastore.scripts import Script
from opsq.exceptions import DecodeError
from opsq.protocol import envelope, writing

MOVE = Script(LUA / "move.lua", LANE)
PURGE = Script(LUA / "purge.lua")
FREE = Script(LUA / "free.lua")

#: Messages of one step.
AT_ONCE = 2000
#: Messages are looked for this far from where they were seen: others take from the same list meanwhile.
DRIFT = 1000


def purge(broker: Broker, queue: str) -> int:
    """Throw away everything that waits in a queue, now, for later or for its limits, in one step.

    Returns how many messages that were. What is in flight, and the dead letters, stay. What unique messages among them
    had claimed is free then.
    """
    of_queue = keys.delayed(queue), keys.lanes(queue), keys.lane_facts(queue)
    places = [broker.key(each) for each in (*of_queue, *broker.priorities.lists(queue))]
    aside = broker.key(keys.purged(queue, uuid4().hex))
    with errors(broker.url):
        count, names = PURGE.run(broker.client, places, [aside, keys.PURGED_S])
        for name in names:
            for raws in slices(broker, name):
                free_claims(broker, raws)
            broker.client.unlink(name)
    return int(count)


def slices(broker: Broker, name: bytes) -> Iterator[list[bytes]]:
    """All members of a list or a sorted set."""
    is_list = broker.client.type(name) == b"list"
    read: Any = broker.client.lrange if is_list else broker.client.zrange
    start = 0
    while raws := read(name, start, start + AT_ONCE - 1):
        yield raws
        start += AT_ONCE


def free_claims(broker: Broker, raws: list[bytes]) -> None:
    """What the unique ones among these messages (or members of a delayed set) have claimed becomes free."""
    claims = {}
    for raw in raws:
        if envelope.UNIQUE.encode() in raw:
            try:
                headers = envelope.parse(raw[raw.index(b"{") :]).headers
            except DecodeError:
                continue
            if headers.unique is not None:
                claims[broker.key(keys.unique(headers.unique))] = headers.id
    if claims:
        FREE.run(broker.client, list(claims), list(claims.values()))


class Move:
    """Messages on their way from one queue to another; `task`: only that task's."""

    def __init__(self, broker: Broker, source: str, target: str, task: str | None = None) -> None:
        self._broker, self._source, self._target, self._task = broker, source, target, task

    def count(self) -> int:
        """How many messages there are to be moved: now, for their limits and for later."""
        if self._task is None:
            return states(self._broker, [self._source])[0].pending
        with errors(self._broker.url):
            found = 0
            for source, *_others in self._places():
                for raws in slices(self._broker, source.encode()):
                    found += sum(1 for raw in raws if self._changed(raw) is not None)
            return found

    def run(self, limit: int = 0) -> int:
        """Move the next ones (0 = all), those for limits (they have waited longest) first, for later last; how many.

        Each is in exactly one of the two queues at any moment, and keeps its priority and its place among the moved.
        What others take meanwhile is passed by.
        """
        self._broker.make_known(self._target, 0)
        moved = 0
        with errors(self._broker.url):
            for source, *others in self._places():
                step = self._set_step if source == self._broker.key(keys.delayed(self._source)) else self._list_step
                passed: int | None = 0
                while passed is not None and (not limit or moved < limit):
                    done, passed = step([source, *others], passed, limit - moved if limit else AT_ONCE)
                    moved += done
        return moved

    def _places(self) -> Iterator[list[str]]:
        """Keys of MOVE: for each list of the source's lanes, then for its own, the first served first, then for its
        delayed set.
        """
        broker = self._broker
        of_target = [broker.key(each) for each in broker.priorities.lists(self._target)]
        for lane in lanes(broker.client, broker.key_prefix, [self._source]):
            for source, target in zip(lane.lists, of_target, strict=False):
                yield [source, target, lane.facts]
        for name, target in zip(broker.priorities.lists(self._source), of_target, strict=True):
            yield [broker.key(name), target]
        yield [broker.key(keys.delayed(queue)) for queue in (self._source, self._target)]

    def _list_step(self, places: list[str], passed: int, most: int) -> tuple[int, int | None]:
        """Look at messages beyond the first `passed` and move some: how many, and how many are passed (None = all).

        Some are looked at once more: what others have taken has brought the later ones nearer.
        """
        nearest = max(passed - DRIFT, 0)
        raws: Any = self._broker.client.lrange(places[0], -passed - AT_ONCE, -nearest - 1)
        raws.reverse()
        pairs, seen = self._pairs(raws, most)
        moved = self._move(places, ["list", max(nearest - DRIFT, 0), passed + AT_ONCE + DRIFT], pairs)
        return moved, None if len(raws) <= passed - nearest else nearest + seen - len(pairs)

    def _set_step(self, places: list[str], passed: int, most: int) -> tuple[int, int | None]:
        """The same of a delayed set."""
        nearest = max(passed - DRIFT, 0)
        members: Any = self._broker.client.zrange(places[0], nearest, passed + AT_ONCE - 1)
        pairs, seen = self._pairs(members, most)
        moved = self._move(places, ["set", "", ""], pairs)
        return moved, None if len(members) <= passed - nearest else nearest + seen - len(pairs)

    def _move(self, places: list[str], opening: list[Any], pairs: list[tuple[bytes, bytes]]) -> int:
        if not pairs:
            return 0
        words = [word for pair in pairs for word in pair]
        return int(MOVE.run(self._broker.client, places, [*opening, *words]))

    def _pairs(self, raws: list[bytes], most: int) -> tuple[list[tuple[bytes, bytes]], int]:
        """Of these messages the first that are to be moved, as they are and as they will be; and how many were seen."""
        pairs: list[tuple[bytes, bytes]] = []
        for seen, raw in enumerate(raws):
            if len(pairs) == most:
                return pairs, seen
            changed = self._changed(raw)
            if changed is not None:
                pairs.append((raw, changed))
        return pairs, len(raws)

    def _changed(self, raw: bytes) -> bytes | None:
        """A message (or member of a delayed set) as it stands in the target; None if it is not to be moved.

        One that cannot be read is moved as it is, unless only a certain task's are.
        """
        start = raw.find(b"{")
        try:
            message = envelope.parse(raw[max(start, 0) :])
        except DecodeError:
            return raw if self._task is None else None
        if self._task not in (None, message.headers.task):
            return None
        where = {"exchange": "", "routing_key": self._target}
        return raw[:start] + writing.changed(writing.unparked(message.raw), {}, {"delivery_info": where})
