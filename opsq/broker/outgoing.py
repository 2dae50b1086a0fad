"""Messages on their way to a queue, and the commands that put them there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from opsq.datastore import keys
from opsq.datastore.priorities import Priorities
from opsq.datastore.scripts import Script

LUA = Path(__file__).with_name("lua")
#: What scripts begin with that send.
SENDING = LUA / "sending_functions.lua"
PUBLISH = Script(LUA / "publish.lua", SENDING)
CLAIM = Script(LUA / "claim.lua", SENDING)

Command = tuple[Any, ...]


class Claim(NamedTuple):
    """What a unique message claims: its key (kept for `for_s` seconds at most), in the name of its id.

    `debounced`: it takes the place of one that waits; `tag` is its delivery tag.
    """

    key: str
    task_id: str
    for_s: float
    debounced: bool = False
    tag: str = ""


class Limit(NamedTuple):
    """How many messages a queue holds at most, now and for later; how long a sender waits for room (seconds).

    `wait_s`: 0 = it is refused at once, None = it waits as long as it takes.
    """

    length: int
    wait_s: float | None = 0


class Address(NamedTuple):
    """An exchange and a routing key: the exchange's bindings, which are in Redis, say where a message goes.

    `type`: of the exchange, None = as its bindings look; `limits`: of the queues that the sender knows to be limited;
    `queue`: one that the sender itself binds so, whether or not that stands in Redis yet.
    """

    exchange: str
    routing_key: str
    type: str | None = None
    limits: Mapping[str, Limit] = {}
    queue: str = ""


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One message on its way to a queue; `due_ms` (Unix ms) when it is for later.

    With an `address` its queues are still to be found; with a `channel` it goes to all who listen there, into no queue.
    """

    queue: str
    raw: bytes
    priority: int = 0
    due_ms: int | None = None
    claim: Claim | None = None
    limit: Limit | None = None
    address: Address | None = None
    channel: str = ""


class Names(Protocol):
    """How keys are called: a Broker."""

    priorities: Priorities

    def key(self, name: str) -> str:
        """A key's name with the global prefix."""


def publish_command(names: Names, place: str, messages: Sequence[Outgoing], again: bool) -> Command:
    """The script that publishes messages of one list, each for now or for later."""
    first = messages[0]
    limit = first.limit
    found = [*_places(names, place, first.queue), *(_lists(names, first.queue) if limit else ())]
    words: list[Any] = ["1" if again else "", names.priorities.suffix(first.priority), limit.length if limit else ""]
    for message in messages:
        words += ("" if message.due_ms is None else message.due_ms, message.raw)
    return ("EVALSHA", PUBLISH.sha, len(found), *found, *words)


def claim_command(names: Names, place: str, message: Outgoing, raw: bytes, task_id: str) -> Command:
    """The script that publishes a message with a claim; `raw` and `task_id`: as it stands in another's place."""
    claim, limit = message.claim, message.limit
    assert claim is not None
    name = keys.debounced(message.queue, claim.key) if claim.debounced else keys.unique(claim.key)
    found = [*_places(names, place, message.queue), names.key(name), *(_lists(names, message.queue) if limit else ())]
    due = "" if message.due_ms is None else message.due_ms
    another = "" if task_id == claim.task_id else "1"
    words = [raw, due, names.priorities.suffix(message.priority), task_id, another, claim.tag, int(claim.for_s * 1000)]
    words += ["1" if claim.debounced else "", limit.length if limit else ""]
    return ("EVALSHA", CLAIM.sha, len(found), *found, *words)


def _places(names: Names, place: str, queue: str) -> list[str]:
    return [place, names.key(keys.delayed(queue)), names.key(keys.consumers(queue))]


def _lists(names: Names, queue: str) -> list[str]:
    return [names.key(each) for each in names.priorities.lists(queue)]
