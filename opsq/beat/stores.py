"""Where a schedule lives in Redis: what was served, what an operator changed, and the one step that sends a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from opsq.broker.broker import RETRY_POLICY, Broker, Outgoing
from opsq.broker.outgoing import SENDING
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.datastore.scripts import Script
from opsq.exceptions import OperationalError, OpsqError

_LUA = Path(__file__).parents[1] / "broker" / "lua"
_TICK = Script(_LUA / "tick.lua", SENDING)
_UNFINISHED = Script(_LUA / "unfinished.lua")

Answer = Literal["sent", "there", "lost", "superseded"]
#: What stands in Redis about an entry (see `opsq.broker.schedules.EntryFacts`).
Record = dict[str, Any]


class NotOurs(Exception):
    """The run is not ours to send: the lease is another's, or the due time was served."""


@dataclass(frozen=True, slots=True)
class Order:
    """An operator's word: run this entry now."""

    raw: str
    id: str
    entry: str


@dataclass(frozen=True, slots=True)
class State:
    """All that Redis knows of a schedule. `served`: last due time of each entry (Unix ms)."""

    served: Mapping[str, int]
    records: Mapping[str, Record]
    added: Mapping[str, Mapping[str, Any]]
    paused: frozenset[str]
    orders: tuple[Order, ...]


@dataclass(slots=True)
class Tick:
    """One run that is about to be sent. `served_ms`: the due time before; `order`: it was asked for by an operator.

    `keep`: remember its message; `failed`: why the broker did not take it.
    """

    name: str
    served_ms: int | None
    due_ms: int
    record: Record
    order: Order | None = None
    keep: bool = False
    done: bool = False
    failed: OpsqError | None = None


class Store:
    """An app's schedule in Redis. Methods raise BrokerError or RefusedError."""

    def __init__(self, broker: Broker, app: str) -> None:
        self.broker, self.app = broker, app

    def _key(self, part: str) -> str:
        return self.broker.key(keys.schedule(self.app, part))

    def load(self) -> State:
        """Everything, in one round trip."""
        with errors(self.broker.url):
            pipe = self.broker.client.pipeline(transaction=True)
            pipe.hgetall(self._key("due"))
            pipe.hgetall(self._key("entries"))
            pipe.hgetall(self._key("added"))
            pipe.smembers(self._key("paused"))
            pipe.lrange(self._key("orders"), 0, -1)
            due, records, added, paused, orders = pipe.execute()
        return State(
            {name.decode(): int(ms) for name, ms in due.items()},
            {name.decode(): json.loads(record) for name, record in records.items()},
            {name.decode(): json.loads(data) for name, data in added.items()},
            frozenset(name.decode() for name in paused),
            tuple(_order(raw.decode()) for raw in orders),
        )

    def describe(self, records: Mapping[str, Record], first: Mapping[str, int], gone: set[str]) -> None:
        """Write what the entries are; `first`: due times of new ones, from which they count; forget those that went."""
        with errors(self.broker.url):
            pipe = self.broker.client.pipeline(transaction=True)
            pipe.sadd(self.broker.key(keys.SCHEDULES), self.app)
            for name, ms in first.items():
                pipe.hsetnx(self._key("due"), name, ms)
            if records:
                pipe.hset(self._key("entries"), mapping={name: json.dumps(told) for name, told in records.items()})
            if gone:
                for part in ("entries", "due", "sent"):
                    pipe.hdel(self._key(part), *gone)
            pipe.execute()

    def drop_order(self, order: Order) -> None:
        """Forget an order that nobody can carry out."""
        with errors(self.broker.url):
            self.broker.client.lrem(self._key("orders"), 1, order.raw)

    def tick(self, lease: str, tick: Tick, message: Outgoing | None) -> Answer:
        """Send a run and record it, in one step."""
        queue, priority = (message.queue, message.priority) if message else ("", 0)
        priorities = self.broker.priorities
        found = [self._key(part) for part in ("lease", "due", "entries", "orders", "sent")]
        found += [self.broker.key(each) for each in (priorities.list_of(queue, priority), keys.delayed(queue))]
        found.append(self.broker.key(keys.consumers(queue)))
        before = "" if tick.served_ms is None else tick.served_ms
        later: tuple[Any, Any] = ("", "")
        if message is not None and message.due_ms is not None:
            later = (message.due_ms, priorities.suffix(priority) + message.raw)
        order = tick.order.raw if tick.order else ""
        record, raw = json.dumps(tick.record), message.raw if message else b""
        words = [lease, tick.name, before, tick.due_ms, record, raw, *later, order, "1" if tick.keep else ""]
        claim = message.claim if message is not None else None
        if claim is None or claim.debounced:  # a run of the clock waits for no quiet
            words += ["", ""]
        else:
            found.append(self.broker.key(keys.unique(claim.key)))
            words += [claim.task_id, int(claim.for_s * 1000)]
        with errors(self.broker.url):
            answer: bytes = _TICK.run(self.broker.client, found, words)
        return cast(Answer, answer.decode())

    def is_unfinished(self, name: str, record: Record) -> bool:
        """Whether the message of the last run still waits or runs somewhere."""
        queue, task_id = record.get("queue"), record.get("id")
        if not queue or not task_id:
            return False
        lists = [self.broker.key(each) for each in self.broker.priorities.lists(queue)]
        found = [self.broker.key(keys.consumers(queue)), self.broker.key(keys.delayed(queue)), *lists]
        with errors(self.broker.url):
            raw: Any = self.broker.client.hget(self._key("sent"), name)
            stores = self.broker.key(keys.inflight(queue, ""))
            lanes = self.broker.key(keys.lanes(queue)), self.broker.key(keys.lane_facts(queue))
            words = [task_id, raw or "", stores, self.broker.key(keys.UNACKED), *lanes]
            return bool(_UNFINISHED.run(self.broker.client, found, words))


class TickingBroker(Broker):
    """The broker of a beat's app: what is published for a run goes out by the step that records the run.

    So a task's own `apply_async`, signals and routes work as in any program.
    """

    def __init__(self, broker: Broker, store: Store, lease: str) -> None:
        super().__init__(broker.url, broker.key_prefix, broker.priorities, lambda: broker.declared, broker.channels)
        self._store, self._lease = store, lease
        self.current: Tick | None = None

    def publish(self, message: Outgoing, retry_policy: Mapping[str, Any] | None = RETRY_POLICY) -> str | None:
        """Send; the first message of a run with its record. Raises NotOurs when the run is another's."""
        tick = self.current
        if tick is None or tick.done:
            return super().publish(message, retry_policy)
        if message.address is not None:
            self._send_to(tick, message)
            return None
        tick.record["queue"] = message.queue
        self.record(tick, message)
        return None

    def _send_to(self, tick: Tick, message: Outgoing) -> None:
        """A run that goes to an exchange: the first of its queues gets it with the record, the others, and who listens
        to a broadcast, right after it.
        """
        try:
            first, *others = self.spread([message])
        except OperationalError as error:
            tick.failed = error
            raise
        tick.record["queue"] = first.queue or None
        if first.channel:
            self.record(tick)
            self.publish_many([first, *others])
            return
        self.record(tick, first)
        self.publish_many(others)

    def record(self, tick: Tick, message: Outgoing | None = None) -> None:
        """Record a run, with its message if it has one. Raises NotOurs, BrokerError, RefusedError."""
        try:
            if message is not None:
                with errors(self.url):
                    self.make_known(message.queue, message.priority)
            answer = self._store.tick(self._lease, tick, message)
        except OpsqError as error:
            tick.failed = error
            raise
        if answer not in ("sent", "there"):
            raise NotOurs(answer)
        tick.done = True


def _order(raw: str) -> Order:
    told = json.loads(raw)
    return Order(raw, str(told.get("id")), str(told.get("entry")))
