"""The beat: sleeps until the next entry is due and sends it once, as long as it is the one of many that ticks."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from opsq.beat import definitions
from opsq.beat.entry import Entry
from opsq.beat.leader import LEASE_S, Holder, Leader
from opsq.beat.notices import Notices
from opsq.beat.plan import Plan, description
from opsq.beat.sending import Sender
from opsq.beat.source import DATABASE, UNSAVED, Code, Found, Source
from opsq.beat.stores import NotOurs, Order, State, Store, Tick, TickingBroker
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.datastore.trouble import TROUBLE, RedisError
from opsq.exceptions import BrokerError
from opsq.runtime import backoff
from opsq.runtime.bell import Bell
from opsq.runtime.clock import Clock
from opsq.schedules import crontab

logger = logging.getLogger("celery.beat")

#: The schedule of an app without a name.
NAMELESS = "default"
#: Although changes are heard, the schedule is read anew so often (seconds).
READ_AGAIN_S = 60.0
#: Where changes cannot be heard, they are looked for so often (seconds).
DEAF_PAUSE_S = 1.0
#: While the broker is away it is looked for at least so often (seconds).
MOST_PAUSE_S = 5.0


class Beat:
    """One beat of one app; `run` returns when it was stopped."""

    def __init__(
        self,
        app: Any,
        *,
        clock: Clock | None = None,
        max_interval_s: float | None = None,
        lease_s: float = LEASE_S,
        source: Callable[[Any, definitions.Definitions], Source] | None = None,
    ) -> None:
        """`max_interval_s`: the longest sleep; `source`: makes, of app and own entries, what is read instead of those.

        Raises ImproperlyConfigured, BrokerError.
        """
        self.app, self.clock, self.max_interval_s = app, clock or Clock(), max_interval_s
        self.name = name_of(app)
        self.store = Store(app.broker, self.name)
        self.leader = Leader(app.broker, self.name, lease_s)
        self.broker = app.broker = TickingBroker(app.broker, self.store, self.leader.value)
        self.sender = Sender(app, self.broker, self.clock)
        self.own = definitions.of_app(app)
        self.source: Source = source(app, self.own) if source else Code(self.own)
        self._found = Found({})
        self.leading = False
        self.plans: dict[str, Plan] = {}
        self._added: tuple[Mapping[str, Any], definitions.Definitions] = {}, definitions.Definitions({}, ())
        self._notices = Notices(app.broker.url, app.broker.key(keys.schedule_channel(self.name)))
        self._orders: tuple[Order, ...] = ()
        self._holder, self._compared = "", False
        #: A descriptor of the process that ticks instead.
        self._watched: int | None = None
        self._look_at, self._read_at, self._ask_at = 0.0, 0.0, 0.0
        self._failures, self._stopping = 0, False
        self._closed = False
        self._bell = Bell()

    def run(self, on_ready: Callable[[], Any] = lambda: None, *, patient: bool = False) -> None:
        """Work until stopped; `on_ready` is called when the broker has answered for the first time.

        Raises BrokerError or RefusedError when it cannot be reached at start, unless `patient`.
        """
        for problem in self.own.problems:
            logger.error("%s", problem)
        ready = False
        while not self._stopping:
            try:
                pause_s = self.step()
            except TROUBLE as error:
                if not (ready or patient) or not isinstance(error, (BrokerError, RedisError, OSError)):
                    raise
                pause_s = self._broker_is_away(error)
            else:
                self._broker_is_there()
                if not ready:
                    ready = True
                    on_ready()
            self._wait(pause_s)
        self.close()

    def stop(self) -> None:
        """Have `run` return soon; may be called by a signal's handler."""
        self._stopping = True
        self._bell.ring()

    # -- one pass ---------------------------------------------------------------------------------------------------

    def step(self) -> float:
        """Keep the lease, hear what was changed, send what is due; how long nothing will be to do (seconds)."""
        if self._notices.take():
            self._look_at = self._read_at = 0.0
        if self.leading and self.clock.monotonic() >= self._ask_at:
            self._ask()
        try:
            if self.clock.monotonic() >= self._look_at:
                self._look()
            if self.leading:
                self._carry_out_orders()
                for plan in self._due():
                    self._serve(plan)
        except NotOurs as reason:
            logger.warning("beat: this run was another beat's (%s)", reason)
            self._look_at = self._read_at = 0.0
        waits = [self._look_at - self.clock.monotonic()]
        if self.leading:
            waits.append(self._ask_at - self.clock.monotonic())
            waits += [plan.fire_ms / 1000 - self.clock.now() for plan in self.plans.values() if not plan.paused]
        if self.max_interval_s:
            waits.append(self.max_interval_s)
        return max(min(waits), 0.0)

    def _ask(self) -> None:
        """Look at once if entries were changed where they come from."""
        self._ask_at = self.clock.monotonic() + self.source.pause_s
        if self.source.has_changed():
            self._look_at = self._read_at = 0.0

    def _now_ms(self) -> int:
        return int(self.clock.now() * 1000)

    def _due(self) -> list[Plan]:
        now_ms = self._now_ms()
        due = [plan for plan in self.plans.values() if plan.fire_ms <= now_ms and not plan.paused]
        return sorted(due, key=lambda plan: plan.fire_ms)

    def _wait(self, seconds: float) -> None:
        watched = [] if self._watched is None else [self._watched]
        found = self.clock.wait(seconds, [self._bell.reader, *watched, *self._notices.descriptors()])
        if self._bell.reader in found:
            self._bell.read()
        if self._watched in found:
            self._look_at = 0.0
            self._watch_no_more()

    # -- the lease --------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Ask who ticks; if it is this beat, read the schedule anew."""
        with errors(self.store.broker.url):
            holder = self.leader.take()
        leads, now_s = self.leader.holds(holder), self.clock.monotonic()
        pause_s = self.leader.lease_s / 3 if self._notices.hears else DEAF_PAUSE_S
        self._look_at = now_s + (pause_s if leads else min(pause_s, holder.left_s + 0.05))
        if holder.value != self._holder:
            self._has_changed(leads, holder)
        elif not (leads or self._compared):
            self._compare(holder)
        self.leading = leads
        if not leads:
            self.plans = {}
        elif now_s >= self._read_at:
            self._read(self.store.load())
            self._read_at = now_s + (READ_AGAIN_S if self._notices.hears else 0.0)

    def _has_changed(self, leads: bool, holder: Holder) -> None:
        """Another one has the lease now."""
        self._tell_change(leads, holder)
        self._holder, self._read_at, self._compared = holder.value, 0.0, False
        self._watch_no_more()
        self._watched = self.leader.watch(holder)

    def _compare(self, holder: Holder) -> None:
        """Say which of our entries nobody serves: two programs may have given their apps the same name."""
        self._compared = True
        unknown = sorted(set(self.own.entries) - set(self.store.load().records))
        if unknown:
            logger.warning(
                "beat: %s does not know %s: is it of another version, or of another app that is called %r too?",
                holder.who,
                ", ".join(map(repr, unknown)),
                self.name,
            )

    def _watch_no_more(self) -> None:
        if self._watched is not None:
            os.close(self._watched)
            self._watched = None

    def _tell_change(self, leads: bool, holder: Holder) -> None:
        if leads:
            what = f"entries {self.source.place}" if self.source.place else f"{len(self.own.entries)} entries"
            logger.info("beat: ticking (%s of %s)", what, self.name)
        elif self.leading:
            logger.warning("beat: %s ticks now, this one stands by", holder.who)
        else:
            logger.info("beat: standing by, %s ticks", holder.who)

    def close(self) -> None:
        """Let another one tick at once; once for all."""
        if self._closed:
            return
        self._closed = True
        try:
            if self.leading:
                self.leader.give_up()
        except TROUBLE:
            logger.debug("the lease ends by itself")
        self._notices.close()
        self._watch_no_more()
        self._bell.close()

    def _broker_is_away(self, error: Exception) -> float:
        self._failures += 1
        self._look_at = self._read_at = 0.0
        if self._failures == 1:
            logger.warning("beat: %s; waiting for it", error)
        return backoff.delay_s(self._failures, first_s=0.1, most_s=MOST_PAUSE_S)

    def _broker_is_there(self) -> None:
        if self._failures:
            logger.warning("beat: the broker is back")
            self._failures = 0

    # -- what there is to do ----------------------------------------------------------------------------------------

    def _read(self, state: State) -> None:
        """Take over what Redis says; write what it does not know yet."""
        if state.added != self._added[0]:
            read = definitions.read(self.app, state.added, "added")
            self._added = state.added, read
            for problem in read.problems:
                logger.error("%s", problem)
        read_now = self.source.read(state.records)
        found = self._found = read_now or Found(self._found.entries)
        entries = {**self._added[1].entries, **found.entries}
        now_ms = self._now_ms()
        first = {name: found.since.get(name, now_ms) for name in entries if name not in state.served}
        served = {**first, **state.served}
        self.plans = {name: self._plan(entry, state, served[name], now_ms) for name, entry in entries.items()}
        records = {name: plan.record for name, plan in self.plans.items() if plan.record != state.records.get(name)}
        # What cannot be read now may be there: its runs must not be forgotten.
        gone = set() if read_now is None else set(state.records) - set(entries)
        if first or records or gone:
            self.store.describe(records, first, gone)
        self._orders = state.orders

    def _plan(self, entry: Entry, state: State, served_ms: int, now_ms: int) -> Plan:
        """The plan as it was, if nothing has changed; else anew."""
        paused = entry.name in state.paused or not entry.enabled
        old = self.plans.get(entry.name)
        told = self._found.told.get(entry.name, {})
        if old is not None and _same(old, entry) and (old.served_ms, old.paused) == (served_ms, paused):
            old.record.update(told)
            return old
        # a Redis that came back with older data must not make us serve anything again
        from_ms = served_ms if old is None else max(served_ms, old.served_ms)
        from_ms = max(from_ms, self._found.since.get(entry.name, 0))
        if old is not None and _is_another_time(old.entry, entry):
            from_ms = max(from_ms, now_ms)
        known = {**state.records.get(entry.name, {}), **told}
        plan = Plan(entry, served_ms, from_ms, {**known, **description(entry), "paused": paused}, paused)
        if known.get("paused") and not paused:  # what it missed meanwhile counts as served
            self.broker.record(Tick(entry.name, served_ms, now_ms, plan.record))
            plan.served_ms = plan.from_ms = now_ms
        plan.look_ahead(now_ms)
        return plan

    # -- sending ----------------------------------------------------------------------------------------------------

    def _serve(self, plan: Plan) -> None:
        """The runs of an entry whose time has come."""
        now_ms = self._now_ms()
        runs, last_ms = plan.runs(now_ms)
        for due_ms in runs:
            self._send(plan, due_ms, None)
        plan.from_ms = max(plan.from_ms, last_ms)
        plan.look_ahead(now_ms)

    def _carry_out_orders(self) -> None:
        orders, self._orders = self._orders, ()
        for order in orders:
            plan = self.plans.get(order.entry)
            if plan is None:
                logger.warning("beat: there is no entry %r to run", order.entry)
                self.store.drop_order(order)
            else:
                self._send(plan, plan.served_ms, order)

    def _send(self, plan: Plan, due_ms: int, order: Order | None) -> None:
        """One run: sent and recorded, or recorded alone if it cannot be sent or must not overlap. Raises NotOurs."""
        entry = plan.entry
        tick = Tick(entry.name, plan.served_ms, due_ms, {**plan.record}, order, entry.overlap == "skip")
        tick.record["next"] = plan.next_s(due_ms)
        once = entry.once and order is None
        if once:
            tick.record.update(paused=True, next=None)
        if entry.source == DATABASE:
            tick.record[UNSAVED] = "done" if once else "ran"
        if order is None and tick.keep and self.store.is_unfinished(entry.name, plan.record):
            logger.info("Scheduler: %s (%s) is not sent: its last run is unfinished", entry.name, entry.task)
            self.broker.record(tick)
        else:
            self.sender.send(entry, tick)
        plan.record = tick.record
        if order is None:
            plan.served_ms = plan.from_ms = due_ms
            plan.paused = plan.paused or once
        if entry.source == DATABASE and self.source.note(entry.name, plan.record):
            plan.record = {**plan.record, UNSAVED: None}
            self.store.describe({entry.name: plan.record}, {}, set())


def _same(plan: Plan, entry: Entry) -> bool:
    """Whether the plan is one of this very entry: crontabs of two zones are equal as they are to Celery."""
    return plan.entry == entry and plan.entry.zone == entry.zone


def _is_another_time(old: Entry, new: Entry) -> bool:
    """Whether an entry has got another crontab: times of that which are over were never meant."""
    changed = old.schedule != new.schedule or old.zone != new.zone
    return changed and isinstance(new.schedule, crontab)


def name_of(app: Any) -> str:
    """The name under which an app's schedule is kept."""
    return str(app.main or NAMELESS)
