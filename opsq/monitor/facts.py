"""Everything that page, JSON and metrics show, read from where it is kept, once for all who look within a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from opsq import states
from opsq._version import __version__
from opsq.app.base import App
from opsq.broker import deadletters, queues, schedules, stats, task_logs, workers
from opsq.datastore import presence
from opsq.datastore.connection import errors
from opsq.exceptions import OpsqError
from opsq.monitor import minutes, seen_workers
from opsq.monitor import record as records
from opsq.monitor.collector import Collector
from opsq.monitor.minutes import CHART_MINUTES
from opsq.monitor.record import Record
from opsq.monitor.store import History, Wanted

#: For how long what was read is shown again (seconds).
_FRESH_S = 0.8
#: What was said to run so long ago and is not among what runs has ended unheard (seconds).
_MISSED_S = 30.0

Programs = Callable[[], Sequence[Mapping[str, Any]] | None]
T = TypeVar("T")


@dataclass(slots=True)
class _Kept:
    value: Any
    until: float


@dataclass(slots=True)
class Facts:
    """The facts of one broker. `programs`: what the supervisor of this folder says, None if there is none."""

    app: App
    history: History
    collector: Collector
    programs: Programs = lambda: None
    _kept: dict[Any, _Kept] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # -- many ----------------------------------------------------------------------------------------------------------

    def queues(self) -> list[dict[str, Any]]:
        """The queues as they are now, with what ended in them lately (`minutes`) and how they stood (`depths`)."""
        return list(self._once("queues", self._read_queues))

    def workers(self) -> list[dict[str, Any]]:
        """opsq's workers by their records, Celery's by their events."""
        return list(self._once("workers", self._read_workers))

    def overview(self) -> dict[str, Any]:
        """All of the first page but the latest tasks."""
        return {
            "monitor": self.monitor(),
            "programs": self._once("programs", self._read_programs),
            "queues": self.queues(),
            "workers": self.workers(),
            "minutes": minutes.summed([queue["minutes"] for queue in self.queues()]),
        }

    def monitor(self) -> dict[str, Any]:
        """The monitor itself."""
        health = self.collector.health
        return {
            "version": __version__,
            "broker": self.app.broker.where.address,
            "app": self.app.main,
            "connected_since": health.connected_since,
            "trouble": health.trouble or None,
            "events": health.events,
            "unreadable": health.unreadable,
            "history": self._once("size", self.history.size),
            "history_cap": self.history.cap,
            "history_age": self.history.age_s,
            "skipped_last_hour": self._once("skipped", self.history.skipped),
        }

    def totals(self) -> dict[tuple[str, str, str], stats.Total]:
        """(queue, task, state) -> what came of messages since ever."""
        found: dict[tuple[str, str, str], stats.Total] = self._once(
            "totals", lambda: stats.totals(self.app.broker, self.queue_names())
        )
        return found

    def queue_names(self) -> list[str]:
        """The queues that were ever used, and those of the app."""
        names: list[str] = self._once("names", lambda: queues.known(self.app.broker, self.app.queues()))
        return names

    def running(self) -> list[dict[str, Any]]:
        """What runs now on opsq's workers, longest first."""
        found = [
            {"id": child["task_id"], "name": child["task"], "worker": worker["node"], **_ages(child)}
            for worker in self.workers()
            for child in worker["children"]
            if child.get("since")
        ]
        return sorted(found, key=lambda row: -row["runtime"])

    def tasks(self, wanted: Wanted, limit: int, before: str = "") -> dict[str, Any]:
        """A page of the history."""
        page = self._once(("tasks", wanted, limit, before), lambda: self.history.find(wanted, limit, before))
        return {"tasks": [records.described(each) for each in page.records], "older": page.older}

    def schedule(self) -> list[dict[str, Any]]:
        """The entries of the apps' schedules, as the beat that ticks knows them."""
        return [
            {
                "app": entry.app,
                "name": entry.name,
                "task": entry.task,
                "schedule": entry.schedule,
                "zone": entry.zone,
                "last_run": entry.last_run_unix,
                "next_run": entry.next_run_unix,
                "total_runs": entry.total_runs,
                "enabled": entry.enabled,
                "last_id": entry.last_id,
            }
            for entry in schedules.entries(self.app.broker)
        ]

    def hosts(self) -> list[dict[str, Any]]:
        """The hosts whose agents were ever seen here; not verified, only shown."""
        broker = self.app.broker
        with errors(broker.url):
            return [
                {
                    "name": host.name,
                    "state": host.state,
                    "since": host.since,
                    "seen": host.seen_unix,
                    "facts": host.facts,
                }
                for host in presence.hosts(broker.client)
            ]

    def dead(self, limit: int) -> dict[str, Any]:
        """The latest dead letters, and how many there are."""
        letters, total = self._once(
            ("dead", limit), lambda: deadletters.newest(self.app.broker, self.queue_names(), limit)
        )
        return {"dead": [_letter(letter) for letter in letters], "total": total}

    # -- one -----------------------------------------------------------------------------------------------------------

    def worker(self, node: str) -> dict[str, Any] | None:
        """A worker by its node name."""
        return next((worker for worker in self.workers() if node in (worker["node"], worker["id"])), None)

    def record(self, task_id: str) -> Record | None:
        """What the history has of a task."""
        return self.history.get([task_id]).get(task_id)

    def task(self, task_id: str) -> dict[str, Any] | None:
        """All that is known of a task: history, stored result, dead letter, what runs; None if nothing is."""
        record = self.record(task_id)
        stored = self.stored(task_id)
        letters = deadletters.find(self.app.broker, self.queue_names(), task_id)
        running = next((row for row in self.running() if row["id"] == task_id), None)
        if record is None and stored is None and not letters and running is None:
            return None
        told = records.described(record or self._made_up(task_id, stored, letters, running))
        if running is None and self._end_was_missed(told):
            told["note"] = "its end was not heard of"
        return {
            **told,
            "stored": stored,
            "dead": [_letter(letter) for letter in letters],
            "running": running,
            "log": [asdict(line) for line in task_logs.read(self.app.broker, task_id)],
            "chain": [_link(each) for each in self.history.chain(told["root_id"] or task_id)],
        }

    def _end_was_missed(self, told: Mapping[str, Any]) -> bool:
        """Whether a task that seems to run does not: opsq's workers say what they run, dead ones run nothing."""
        if told["state"] != states.STARTED or time.time() - (told["updated"] or 0.0) < _MISSED_S:
            return False
        worker = self.worker(told["worker"] or "")
        return worker is None or worker["kind"] == "opsq" or not worker["alive"]

    def stored(self, task_id: str) -> dict[str, Any] | None:
        """The stored result of a task, fit for JSON."""
        try:
            meta = self.app.backend.get_meta(task_id)
        except OpsqError:
            return None
        if meta["status"] == "PENDING":
            return None
        value = meta.get("result")
        failed = isinstance(value, BaseException)
        return {
            "state": meta["status"],
            "result": None if failed else value,
            "error": f"{type(value).__name__}: {value}" if failed else None,
            "traceback": meta.get("traceback"),
            "done": meta.get("date_done"),
            "children": [_id_of(child) for child in meta.get("children") or ()],
            **{name: meta.get(name) for name in ("name", "args", "kwargs", "worker", "queue", "retries")},
        }

    # -- inside --------------------------------------------------------------------------------------------------------

    def _once(self, what: Any, read: Callable[[], T]) -> T:
        """What was read within the last moment, else read now. Several may read at once; that harms nobody."""
        now = time.monotonic()
        kept = self._kept.get(what)
        if kept is not None and kept.until > now:
            found: T = kept.value
            return found
        value = read()
        with self._lock:
            for old in [key for key, each in self._kept.items() if each.until <= now]:
                del self._kept[old]
            self._kept[what] = _Kept(value, time.monotonic() + _FRESH_S)
        return value

    def forget(self) -> None:
        """Something was changed from here: the next who looks shall see it."""
        with self._lock:
            self._kept.clear()
        self.collector.health.changes += 1

    def _read_queues(self) -> list[dict[str, Any]]:
        broker = self.app.broker
        samples = self.history.samples()
        found = []
        for state in queues.states(broker, self.queue_names()):
            series = stats.by_minute(broker, state.name, CHART_MINUTES)
            found.append(
                {
                    **state.to_data(),
                    "rate": minutes.rate(series),
                    "minutes": [asdict(minute) for minute in series],
                    "depths": [
                        {"time": sample["time"], "waiting": depth, "oldest": oldest_s}
                        for sample in samples
                        for depth, oldest_s in [sample["queues"].get(state.name, (0, None))]
                    ],
                }
            )
        return found

    def _read_workers(self) -> list[dict[str, Any]]:
        now = time.time()
        return seen_workers.rows(workers.live(self.app.broker), self.collector.nodes.all(now), now)

    def _read_programs(self) -> Sequence[Mapping[str, Any]] | None:
        try:
            return self.programs()
        except OpsqError:
            return None

    def _made_up(self, task_id: str, stored: Any, letters: Sequence[Any], running: Any) -> Record:
        """A record of a task that the history does not have."""
        record = Record(task_id)
        if letters:
            told = letters[0].record
            record.name, record.queue, record.state = str(told["task"] or ""), letters[0].queue, "FAILURE"
        if running:
            record.name, record.state = running["name"] or "", "STARTED"
            record.worker, record.started = running["worker"], running["since"]
        if stored:
            record.state, record.name = stored["state"], stored["name"] or record.name
            record.args, record.kwargs = (repr(stored[n]) if stored[n] else "" for n in ("args", "kwargs"))
            record.worker, record.queue = stored["worker"] or record.worker, stored["queue"] or record.queue
            record.retries = stored["retries"] or 0
        return record


def _ages(child: Mapping[str, Any]) -> dict[str, Any]:
    return {"pid": child["pid"], "since": child["since"], "runtime": max(time.time() - child["since"], 0.0)}


def _letter(letter: deadletters.DeadLetter) -> dict[str, Any]:
    told = letter.record
    return {name: told[name] for name in (*deadletters.FIELDS, "error")}


def _link(record: Record) -> dict[str, Any]:
    names = ("id", "name", "state", "parent_id", "received", "started", "finished", "runtime")
    told = records.described(record)
    return {name: told[name] for name in names}


def _id_of(child: Any) -> str:
    """The id in a child of a result as Celery stores it: [[id, parent], [...]]."""
    while isinstance(child, list | tuple) and child:
        child = child[0]
    return str(child)
