"""Listens to the events of all workers, opsq's and Celery's, and writes the history: a batch, a round trip.

A thread of its own with a connection of its own. What happened while nobody listened is made up for from the stored
results, as far as they say; counts do not depend on it, the workers keep them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opsq.broker import queues
from opsq.broker.mailbox import Request, command
from opsq.datastore.connection import explain
from opsq.datastore.line import Line
from opsq.datastore.trouble import TROUBLE
from opsq.events.event import EXCHANGE, MAILBOX_SUFFIX, Channels
from opsq.exceptions import OpsqError
from opsq.monitor import decoding
from opsq.monitor import record as records
from opsq.monitor.intake import Intake
from opsq.monitor.nodes import Nodes
from opsq.monitor.record import Event, Record
from opsq.monitor.store import History, outcomes_missed
from opsq.runtime.backoff import delay_s
from opsq.utils.time import parse_iso

logger = logging.getLogger("opsq.monitor")

#: Events are written together for this long, or sooner when there are many (seconds; messages; bytes).
BATCH_S, BATCH_MESSAGES, BATCH_BYTES = 0.25, 4_000, 32_000_000
#: How often the history is trimmed, the queues are noted, the connection is tried, workers are asked (seconds).
_TRIM_S, SAMPLE_S, _PING_S, _ASK_S = 5.0, 10.0, 15.0, 60.0
#: Queues that a note of how they stand names at most.
_SAMPLED_QUEUES = 200
#: Records that wait for a Redis that takes them again.
_UNWRITTEN_LIMIT = 5_000
#: For how long a stop hears what has arrived (seconds).
_REST_S = 1.0
_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0


@dataclass(slots=True)
class Health:
    """How the collector is. `connected_since`: Unix seconds, None while it does not hear; `trouble`: why."""

    connected_since: float | None = None
    trouble: str = ""
    events: int = 0
    unreadable: int = 0
    skipped: int = 0
    #: Grows with everything that a page may want to show.
    changes: int = 0


@dataclass(frozen=True, slots=True)
class Where:
    """Where events come from, and where commands to workers go (settings `event_exchange`, `control_exchange`)."""

    channels: Channels
    events: str = EXCHANGE
    control: str = "celery"

    @property
    def pattern(self) -> str:
        """What to subscribe to."""
        start = self.channels.pattern(self.events).removesuffix("*")
        return "".join(f"\\{char}" if char in "[]*?^\\" else char for char in start) + "*"

    @property
    def mailbox(self) -> str:
        """The channel of commands."""
        return self.channels.name(f"{self.control}{MAILBOX_SUFFIX}")


@dataclass(slots=True)
class _Clockwork:
    """When something was last done (monotonic seconds)."""

    last: dict[str, float] = field(default_factory=dict)

    def due(self, what: str, every_s: float) -> bool:
        """Whether it is time again; then that counts as done."""
        now = time.monotonic()
        if now - self.last.get(what, -every_s) < every_s:
            return False
        self.last[what] = now
        return True


class Collector:
    """The history's writer. `meta_of`: the stored result of a task; `ask_celery`: have Celery's workers send events."""

    def __init__(
        self,
        history: History,
        meta_of: Callable[[str], dict[str, Any]] | None = None,
        *,
        ask_celery: bool = True,
        where: Where | None = None,
    ) -> None:
        self.history, self.broker = history, history.broker
        self.health, self.nodes = Health(), Nodes()
        self._meta_of, self._ask_celery = meta_of, ask_celery
        self._where = where or Where(Channels(self.broker.where.db, self.broker.key_prefix))
        self._intake = Intake(history.get)
        self._unwritten: dict[str, Record] = {}
        self._skipped = 0
        self._messages: list[bytes] = []
        self._size = 0
        self._flushed = time.monotonic()
        self._clockwork = _Clockwork()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self, deadline_s: float = 5.0) -> None:
        """Write what has been heard, and end within the time (seconds)."""
        self._stopping.set()
        self._thread.join(deadline_s)

    # -- the connection ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            line = Line(self.broker.url)
            try:
                self._listen(line)
                failures = 0
            except TROUBLE as error:
                if self._tell_trouble(error):
                    failures = 0
            finally:
                line.close()
            failures += 1
            self._stopping.wait(delay_s(failures, first_s=_PAUSE_S, most_s=_LONGEST_PAUSE_S))

    def _tell_trouble(self, error: Exception) -> bool:
        """Say once why nothing is heard; True when something was heard before."""
        told = error if isinstance(error, OpsqError) else explain(error, self.broker.url)
        had_been_well = self.health.connected_since is not None
        if had_been_well or not self.health.trouble:
            logger.error("events are not heard: %s", told)
        self.health.connected_since, self.health.trouble = None, str(told)
        self.health.changes += 1
        return had_been_well

    def _listen(self, line: Line) -> None:
        """Hear and write, until the connection ends or this is to stop."""
        line.on_push = self._hear
        line.send(("PSUBSCRIBE", self._where.pattern))
        line.ask("PING")  # its answer comes after the subscription: from now on nothing is missed
        self._ask_workers()
        self._make_up_for_what_was_missed()
        if self.health.trouble:
            logger.warning("events are heard again")
        self.health.connected_since, self.health.trouble = time.time(), ""
        self.health.changes += 1
        while not self._stopping.is_set():
            if line.readable(BATCH_S):
                line.read()
            self._flush_if_due()
            self._keep_house(line)
        self._hear_the_rest(line)
        self._flush()

    def _hear_the_rest(self, line: Line) -> None:
        """What has arrived before the end, within bounds: workers go on telling."""
        until = time.monotonic() + _REST_S
        while line.readable(0) and time.monotonic() < until:
            line.read()

    def _hear(self, push: Sequence[Any]) -> None:
        if len(push) == 4 and push[0] == b"pmessage":
            self._messages.append(push[3])
            self._size += len(push[3])

    def _keep_house(self, line: Line) -> None:
        if self._clockwork.due("ping", _PING_S):
            line.ask("PING")
        if self._clockwork.due("ask", _ASK_S):
            self._ask_workers()
        if self._clockwork.due("trim", _TRIM_S):
            self.history.trim()
        if self._clockwork.due("sample", SAMPLE_S):
            self._sample()

    # -- batches -------------------------------------------------------------------------------------------------------

    def _flush_if_due(self) -> None:
        late = time.monotonic() - self._flushed >= BATCH_S
        if self._messages and (late or len(self._messages) >= BATCH_MESSAGES or self._size >= BATCH_BYTES):
            self._flush()

    def _flush(self) -> None:
        messages, self._messages, self._size = self._messages, [], 0
        now, elapsed_s = time.time(), time.monotonic() - self._flushed
        self._flushed = time.monotonic()
        events, unreadable = decoding.read(messages, now)
        self.health.events += len(events)
        self.health.unreadable += unreadable
        outcome = self._intake.take((event for event in events if not self._of_a_worker(event, now)), elapsed_s)
        self._unwritten.update((record.id, record) for record in outcome.changed)
        self._skipped += outcome.skipped
        self.health.skipped += outcome.skipped
        self.health.changes += bool(events)
        self._write(now)

    def _write(self, now: float) -> None:
        """What Redis refuses is kept for the next time, within bounds."""
        if not self._unwritten and not self._skipped:
            return
        while len(self._unwritten) > _UNWRITTEN_LIMIT:
            del self._unwritten[next(iter(self._unwritten))]
        self.history.write(list(self._unwritten.values()), self._skipped, now)
        self._unwritten, self._skipped = {}, 0

    def _of_a_worker(self, event: Event, now: float) -> bool:
        if not event.type.startswith("worker-"):
            return False
        if self.nodes.hear(event, now) and (event.sw_ident or "") == "py-celery":
            self._ask_workers(event.hostname)
        return True

    # -- what events do not tell ---------------------------------------------------------------------------------------

    def _ask_workers(self, node: str | None = None) -> None:
        """Have workers tell that they are there, and Celery's send their tasks' events (as Flower does)."""
        for method in ("heartbeat", "enable_events") if self._ask_celery else ("heartbeat",):
            request = Request(method, destination=[node] if node else None)
            self.broker.client.publish(self._where.mailbox, command(self._where.control + MAILBOX_SUFFIX, request))

    def _make_up_for_what_was_missed(self) -> None:
        """Tasks that had not ended when last heard of: their stored results say what came of them."""
        if self._meta_of is None:
            return
        changed = []
        try:
            for record, meta in outcomes_missed(self.history, self._meta_of):
                _take_result(record, meta)
                changed.append(record)
                self._intake.forget(record.id)
        except (*TROUBLE, OpsqError) as error:
            logger.warning("results are not read: %s", error)
        if changed:
            self.history.write(changed)

    def _sample(self) -> None:
        names = queues.known(self.broker)[:_SAMPLED_QUEUES]
        stood = {state.name: [state.depth, state.oldest_s] for state in queues.states(self.broker, names)}
        self.history.add_sample({"time": time.time(), "queues": stood})
        self.health.changes += 1


def _take_result(record: Record, meta: Mapping[str, Any]) -> None:
    """An end that was not heard of, as the stored result tells it."""
    value, done = meta.get("result"), meta.get("date_done")
    record.state = str(meta["status"])
    try:
        record.finished = parse_iso(done).timestamp() if isinstance(done, str) else time.time()
    except ValueError:
        record.finished = time.time()
    record.updated = max(record.updated, record.finished)
    text = repr(value)[: records.TEXT_LIMIT]
    if isinstance(value, BaseException):
        record.exception = text
        record.traceback = str(meta.get("traceback") or "")[: records.TRACEBACK_LIMIT]
    else:
        record.result = text
