"""The template's side of a reload: a process that an older worker has started by exec, with today's code and settings.

It is told over its link what the worker is, keeps what cannot change while the worker runs, and says either that it is
ready, and what the settings say now, or why it is not.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from opsq import signals
from opsq.datastore.keys import prefix_of
from opsq.datastore.priorities import Priorities
from opsq.datastore.url import masked
from opsq.exceptions import OpsqError
from opsq.runtime.parent import TEMPLATE_LINK, die_with_parent
from opsq.worker import child, template
from opsq.worker.record import Plan
from opsq.worker.slots import Slots
from opsq.worker.terms import Terms


class Told(msgspec.Struct):
    """What a worker tells a newcomer: what it needs to become its template, and what must stay as it is.

    `writer`: the descriptor that wakes the parent; `report`: where the newcomer writes what the settings say now.
    """

    writer: int
    slots: str
    worker_id: str
    waiting_lock: str
    report: str
    broker_url: str
    result_backend: str | None
    transport: dict[str, Any]
    node: str
    pool: str
    lease_s: float
    heartbeat_s: float
    task_events: str
    event_exchange: str
    mailbox: str
    #: Queues that it was told to consume besides, and those that it was told to consume no more.
    also: list[str]
    cancelled: list[str]


class Report(msgspec.Struct):
    """What a newcomer says of the settings: the new terms, and what stays as it was until a restart, in words."""

    terms: Terms
    kept: list[str]


def told_of(plan: Plan, table: Slots, writer: int, result_backend: str | None, orders: Mapping[str, bool]) -> Told:
    """What a worker tells its next newcomer. `orders`: queues that were added (true) or cancelled (false)."""
    setup = plan.setup
    return Told(
        writer=writer,
        slots=str(table.path),
        worker_id=setup.worker_id,
        # Of its own: one that waits with other queues is not woken by what comes into these.
        waiting_lock=str(_fresh_file(table, "waiting")),
        report=str(_fresh_file(table, "report")),
        broker_url=setup.url,
        result_backend=result_backend,
        transport={"global_keyprefix": setup.key_prefix, **setup.priorities.to_options()},
        node=setup.node,
        pool=setup.pool,
        lease_s=setup.lease_s,
        heartbeat_s=setup.news.interval_s,
        task_events=setup.news.tasks,
        event_exchange=setup.news.exchange,
        mailbox=setup.news.mailbox,
        also=[name for name, wanted in orders.items() if wanted],
        cancelled=[name for name, wanted in orders.items() if not wanted],
    )


def _fresh_file(table: Slots, kind: str) -> Path:
    """A file for one newcomer; it goes with the worker's others."""
    return table.path.with_name(f"{table.path.stem}.{os.urandom(4).hex()}.{kind}")


class Newcomer:
    """A template in the making."""

    def __init__(self, link: socket.socket, parent: int) -> None:
        self._link, self._parent = link, parent
        self.told = msgspec.convert(template.receive(link), Told)
        self._kept: list[str] = []

    @classmethod
    def from_environment(cls) -> Newcomer:
        """The newcomer that this process is; its children are none."""
        text = os.environ.pop(TEMPLATE_LINK)
        descriptor, parent = (int(part) for part in text.split(":"))
        die_with_parent(parent)
        return cls(socket.socket(fileno=descriptor), parent)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Whatever goes wrong inside is told to the parent, and this process ends."""
        try:
            yield
        except BaseException as error:
            template.say(self._link, {"failed": _why(error)})
            child.leave(1)

    def keep(self, app: Any, node: str, pool: str, lease_s: float) -> None:
        """Keep what cannot change while the worker runs; what the settings say otherwise is noted."""
        told = self.told
        broker, results = app.find_broker().url, app.find_results().url
        options = app.conf.broker_transport_options or {}
        transport = names_of(options)
        self._note_url("broker_url", told.broker_url, broker)
        self._note_url("result_backend", told.result_backend, results)
        for name, before, now in (
            *((name, told.transport[name], transport[name]) for name in transport),
            ("hostname", told.node, node),
            ("pool", told.pool, pool),
            ("lease", told.lease_s, lease_s),
        ):
            self._note(name, before, now)
        source = "kept until a restart"
        if broker != told.broker_url:
            app.conf.put_flag("broker_url", told.broker_url, source)
        if results != told.result_backend:
            app.conf.put_flag("result_backend", told.result_backend, source)
        if transport != told.transport:
            app.conf.put_flag("broker_transport_options", {**options, **told.transport}, source)
        for made in ("broker", "backend"):
            vars(app).pop(made, None)

    def adopt(self, plan: Plan) -> Plan:
        """The plan of this process as that of the worker it belongs to."""
        told, setup = self.told, plan.setup
        news = setup.news
        self._note("heartbeat interval", told.heartbeat_s, news.interval_s)
        self._note("worker_send_task_events", told.task_events, news.tasks)
        self._note("event_exchange", told.event_exchange, news.exchange)
        self._note("control_exchange", told.mailbox, news.mailbox)
        news = replace(
            news,
            interval_s=told.heartbeat_s,
            tasks=told.task_events,
            exchange=told.event_exchange,
            mailbox=told.mailbox,
        )
        setup = replace(
            setup,
            worker_id=told.worker_id,
            waiting_lock=Path(told.waiting_lock),
            lease_s=told.lease_s,
            news=news,
        )
        return replace(plan, setup=setup)

    def serve(self, worker: Any) -> None:
        """Say that all is well, and be a template from now on; never returns."""
        table = Slots.attach(Path(self.told.slots))
        worker.be_template(self.adopt(worker.plan), table, self.told.writer)
        signals.worker_init.send(worker)
        Path(self.told.report).write_bytes(msgspec.json.encode(Report(worker.plan.terms, self._kept)))
        template.say(self._link, {"ready": True})
        template.serve(self._link, worker.become_child, worker.tell_epilogue, self._parent)

    def _note(self, name: str, before: Any, now: Any) -> None:
        if before != now:
            self._kept.append(f"{name} stays {_shown(before)} (now {_shown(now)})")

    def _note_url(self, name: str, before: str | None, now: str | None) -> None:
        """URLs are compared whole and shown without passwords."""
        if before == now:
            return
        shown = [masked(url) if url else "none" for url in (before, now)]
        if shown[0] == shown[1]:
            self._kept.append(f"{name} keeps its old password")
        else:
            self._kept.append(f"{name} stays {shown[0]} (now {shown[1]})")


def names_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """What broker_transport_options say of the names of keys."""
    return {"global_keyprefix": prefix_of(options), **Priorities.of(options).to_options()}


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value) or "empty"


def _why(error: BaseException) -> str:
    """In one line."""
    if isinstance(error, SystemExit):
        text = f"it ended with exit code {error.code}"
    elif isinstance(error, OpsqError):
        text = str(error)
    else:  # click's errors have their words
        words = getattr(error, "format_message", None)
        text = words() if words is not None else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
