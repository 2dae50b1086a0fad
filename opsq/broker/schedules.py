"""The schedules of periodic tasks as they stand in Redis: for those who look, and for an operator's words to a beat.

The beat itself writes what is read here (`opsq.beat.stores`).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from opsq.broker.broker import Broker
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.exceptions import UsageError


@dataclass(frozen=True, slots=True)
class EntryFacts:
    """One entry. `schedule` is a text for people, `data` the same for programs (None: a class of the app's own).

    Times in Unix seconds; `next_run_unix` is None while the entry is paused. `source`: "app" or "added";
    `trouble`: why the last run could not be sent.
    """

    app: str
    name: str
    task: str
    schedule: str
    zone: str
    last_run_unix: float | None = None
    next_run_unix: float | None = None
    total_runs: int = 0
    enabled: bool = True
    source: str = "app"
    last_id: str | None = None
    trouble: str | None = None
    data: Mapping[str, Any] | None = None
    served_ms: int | None = None
    order: str | None = field(default=None, repr=False)


def apps(broker: Broker) -> list[str]:
    """The apps that have a schedule here."""
    with errors(broker.url):
        found: Any = broker.client.smembers(broker.key(keys.SCHEDULES))
    return sorted(_text(name) for name in found)


def entries(broker: Broker, app: str | None = None) -> list[EntryFacts]:
    """The entries of an app, or of all, by name; as the beat that ticks (or the last one that did) knows them."""
    names = apps(broker) if app is None else [app]
    if not names:
        return []
    with errors(broker.url):
        pipe = broker.client.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(broker.key(keys.schedule(name, "entries")))
            pipe.smembers(broker.key(keys.schedule(name, "paused")))
            pipe.hgetall(broker.key(keys.schedule(name, "due")))
        answers = pipe.execute()
    found = []
    for place, name in enumerate(names):
        records, paused, due = answers[3 * place : 3 * place + 3]
        found += [_facts(name, key, record, key in paused, due.get(key)) for key, record in records.items()]
    return sorted(found, key=lambda entry: (entry.app, entry.name))


def _facts(app: str, key: bytes, record: bytes, paused: bool, due: bytes | None) -> EntryFacts:
    told = json.loads(record)
    enabled = bool(told.get("enabled", True)) and not paused
    return EntryFacts(
        app=app,
        name=_text(key),
        task=told["task"],
        schedule=told["schedule"],
        zone=told["zone"],
        last_run_unix=told.get("last"),
        next_run_unix=told.get("next") if enabled else None,
        total_runs=told.get("runs", 0),
        enabled=enabled,
        source=told.get("source", "app"),
        last_id=told.get("id"),
        trouble=told.get("trouble"),
        data=told.get("data"),
        served_ms=int(due) if due else None,
        order=told.get("order"),
    )


def leader(broker: Broker, app: str) -> dict[str, Any] | None:
    """The beat that ticks for an app: `host`, `pid`, `since` (Unix seconds); None when none does."""
    with errors(broker.url):
        held: Any = broker.client.get(broker.key(keys.schedule(app, "lease")))
    return json.loads(held) if held else None


def pause(broker: Broker, app: str, name: str) -> bool:
    """Have the entry fire no more until it is resumed; False when it was paused already."""
    with errors(broker.url):
        changed = broker.client.sadd(broker.key(keys.schedule(app, "paused")), name)
    tell(broker, app)
    return bool(changed)


def resume(broker: Broker, app: str, name: str) -> bool:
    """Have a paused entry fire again; what it missed meanwhile is not made up. False when it was not paused."""
    with errors(broker.url):
        changed = broker.client.srem(broker.key(keys.schedule(app, "paused")), name)
    tell(broker, app)
    return bool(changed)


def added(broker: Broker, app: str) -> dict[str, dict[str, Any]]:
    """The entries that were added by command, by name."""
    with errors(broker.url):
        found: Any = broker.client.hgetall(broker.key(keys.schedule(app, "added")))
    return {_text(name): json.loads(data) for name, data in found.items()}


def add(broker: Broker, app: str, name: str, definition: Mapping[str, Any]) -> None:
    """Add an entry (data as in `beat_schedule`, its schedule as plain data). Raises UsageError when it exists."""
    with errors(broker.url):
        made = broker.client.hsetnx(broker.key(keys.schedule(app, "added")), name, json.dumps(definition))
        broker.client.sadd(broker.key(keys.SCHEDULES), app)
    if not made:
        raise UsageError(f"cannot add the entry {name!r}", why="it exists", hint=f"opsq schedule remove {name!r}")
    tell(broker, app)


def remove(broker: Broker, app: str, name: str) -> bool:
    """Remove an entry that was added by command; False when there is none of this name."""
    with errors(broker.url):
        pipe = broker.client.pipeline(transaction=True)
        pipe.hdel(broker.key(keys.schedule(app, "added")), name)
        for part in ("entries", "due", "sent"):
            pipe.hdel(broker.key(keys.schedule(app, part)), name)
        pipe.srem(broker.key(keys.schedule(app, "paused")), name)
        done = pipe.execute()[0]
    tell(broker, app)
    return bool(done)


def order_run(broker: Broker, app: str, name: str) -> str:
    """Ask the beat to send the entry now; returns the order's id, which the entry's record has when that is done."""
    order = uuid.uuid4().hex
    where = broker.key(keys.schedule(app, "orders"))
    with errors(broker.url):
        pipe = broker.client.pipeline(transaction=True)
        pipe.rpush(where, json.dumps({"id": order, "entry": name}))
        pipe.expire(where, keys.ORDER_AGE_S)
        pipe.execute()
    tell(broker, app)
    return order


def tell(broker: Broker, app: str) -> None:
    """Tell the beats of an app that something was changed."""
    with errors(broker.url):
        broker.client.publish(broker.key(keys.schedule_channel(app)), "changed")


def _text(name: bytes) -> str:
    return name.decode(errors="replace")
