"""The worker's thread at the broker: renews its leases, rescues what the dead held, promotes what is due.

One pipeline every third of the lease is all that an idle worker sends besides its waiter's turn. The same thread does
what else the parent wants of Redis (`submit`), so the parent itself never waits for it.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import NoScriptError, RedisError

from opsq.broker.broker import LUA, announce_queue
from opsq.broker.consumer import Alive, Consumer
from opsq.datastore import keys
from opsq.datastore.connection import TROUBLE, Link, client, connection
from opsq.datastore.scripts import Script
from opsq.worker import slots, successor
from opsq.worker.slots import Slots
from opsq.worker.successor import Judge

logger = logging.getLogger("opsq.worker")

RENEW = Script(LUA / "renew.lua")
PROMOTE = Script(LUA / "promote.lua")

#: Delayed messages moved in one step.
PROMOTE_MOST = 500
#: The least time between two looks at the delayed sets (seconds).
PROMOTE_PAUSE_S = 0.01
#: Until messages that are due and cannot be moved are tried again (seconds).
STUCK_S = 1.0
REPLY_S = 5.0


@dataclass(frozen=True, slots=True)
class Post:
    """What the thread must know: the broker, the worker's name (`<node>:<8 hex>`), its queues, its lease (seconds)."""

    url: str
    worker_id: str
    queues: list[str]
    lease_s: float
    key_prefix: str
    slots_folder: Path


class Leases(threading.Thread):
    """Runs until `end`; `ready` is set when the first renewal was answered."""

    def __init__(
        self,
        post: Post,
        table: Slots,
        judge: Judge,
        describe: Callable[[], dict[str, Any]],
        on_strays: Callable[[set[int]], None],
    ) -> None:
        """`describe` tells what the worker runs; `on_strays(slots)`: idle children that hold messages unknowingly."""
        super().__init__(name="opsq-leases", daemon=True)
        self.post, self.table, self.judge = post, table, judge
        self._describe, self._on_strays = describe, on_strays
        self.registered: set[int] = set()
        self.ready = threading.Event()
        self.trouble = ""
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._ending = False
        self._noticed = False
        self._told: set[str] = set()
        self._tracks = False
        self._connected_at = 0.0
        self._next_due_s: float | None = None
        self._link: Link | None = None
        self._idle_before: set[int] = set()

    # -- what the parent calls --------------------------------------------------------------------------------------

    def submit(self, job: Callable[[], None]) -> None:
        """Do something with Redis in this thread; tried again until it works."""
        self._jobs.put(job)
        self._wake()

    def register(self, index: int, then: Callable[[], None]) -> None:
        """Register the consumer of a slot with all queues, then say so."""

        def job() -> None:
            self.registered.add(index)
            self._renew()
            then()

        self.submit(job)

    def end(self) -> None:
        """Stop after the jobs that are waiting."""
        self._ending = True
        self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._writer, b".")
        except BlockingIOError:
            pass

    # -- the thread -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Renew, promote and do jobs until told to end."""
        delay_s, job = 0.05, None
        while True:
            try:
                if self._link is None:
                    self._connect()
                    self._renew()
                    self.ready.set()
                while True:
                    job = job or self._next_job()
                    if job is None:
                        break
                    job()
                    job = None
                if self.trouble:
                    logger.info("the broker is back")
                delay_s, self.trouble = 0.05, ""
                if self._ending:
                    return
                self._pass_time()
            except Exception as error:
                if not isinstance(error, TROUBLE):  # of ours: leases must be renewed whatever happens
                    logger.critical("the thread of the leases stumbled over a job and goes on", exc_info=True)
                    job = None
                self._lost(error)
                if self._ending and delay_s > 0.5:
                    return
                time.sleep(delay_s)
                delay_s = min(delay_s * 2, 1.0)

    def _next_job(self) -> Callable[[], None] | None:
        try:
            return self._jobs.get_nowait()
        except queue.Empty:
            return None

    def _lost(self, error: Exception) -> None:
        if not self.trouble:
            logger.warning("cannot renew the leases, trying again: %s", error)
        self.trouble = str(error) or type(error).__name__
        if self._link is not None:
            self._link.disconnect()
            self._link = None

    def _connect(self) -> None:
        link = connection(self.post.url, socket_timeout=REPLY_S)
        link.connect()
        self._tracks = True
        try:
            self._ask(link, "CLIENT", "TRACKING", "ON", "OPTIN", "NOLOOP")
            link._parser.set_invalidation_push_handler(self._on_notice)
        except redis.ResponseError:
            self._tracks = False
        for script in (RENEW, PROMOTE):
            self._ask(link, "SCRIPT", "LOAD", script.text)
        pipe = client(self.post.url).pipeline(transaction=False)
        for name in self.post.queues:
            announce_queue(pipe, name, self.post.key_prefix)
        pipe.execute()
        self._link, self._connected_at = link, time.monotonic()
        self._next_renewal = 0.0

    @staticmethod
    def _ask(link: Link, *command: Any) -> Any:
        link.send_command(*command, check_health=False)
        return link.read_response()

    def _on_notice(self, _push: Any) -> None:
        self._noticed = True

    def _pass_time(self) -> None:
        """Sleep until the next renewal, the next due message, a notice or a job; then do it."""
        now = time.monotonic()
        until = self._next_renewal
        if self._next_due_s is not None:
            until = min(until, now + max(self._next_due_s - time.time(), 0))
        if not self._noticed:
            self._sleep(until - now)
        if time.monotonic() >= self._next_renewal:
            self._renew()
        elif self._noticed or (self._next_due_s is not None and self._next_due_s <= time.time()):
            time.sleep(PROMOTE_PAUSE_S)
            self._promote()

    def _sleep(self, seconds: float) -> None:
        assert self._link is not None
        if self._link.can_read(0):  # what came together with an answer is not in the socket any more
            self._link.read_response(push_request=True)
            return
        poller = select.poll()
        poller.register(self._reader, select.POLLIN)
        poller.register(self._link._sock, select.POLLIN)
        for descriptor, _event in poller.poll(max(seconds, 0) * 1000 + 1):
            if descriptor == self._reader:
                os.read(self._reader, 4096)
            else:
                self._link.read_response(push_request=True)

    # -- renewing ---------------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        """One pipeline: the leases of all consumers on all queues, the worker's own, and what is due."""
        post, prefix = self.post, self.post.key_prefix
        lease_ms = int(post.lease_s * 1000)
        indexes = [index for index in sorted(self.registered) if not self._leaves(index)]
        names = [f"{post.worker_id}:{index}" for index in indexes]
        commands: list[Sequence[Any]] = []
        for name in post.queues:
            stores = [prefix + keys.inflight(name, consumer) for consumer in names]
            commands.append(self._call(RENEW, [prefix + keys.consumers(name), *stores], [lease_ms, *names]))
        commands.append(self._call(RENEW, [prefix + keys.WORKERS], [lease_ms, post.worker_id]))
        info = json.dumps(self._describe())
        commands.append(("SET", prefix + keys.worker(post.worker_id), info, "PX", 3 * lease_ms))
        sent = time.monotonic()
        answers = self._pipeline(commands + self._promotions())
        for answer in answers[: len(commands)]:
            if isinstance(answer, Exception):
                raise answer
        self._extend(sent)
        self._next_renewal = sent + post.lease_s / 3
        self._take_due(answers[len(commands) :])
        self._look_for_strays(indexes, [held for held, _ in answers[: len(post.queues)]])
        self._reap([expired for _, expired in answers[: len(post.queues)]], answers[len(post.queues)][1])

    def _leaves(self, index: int) -> bool:
        """Whether a child has settled everything and takes itself out of the registry."""
        return bool(self.table.slot(index).words[slots.STATE] == slots.LEAVING)

    def _extend(self, sent: float) -> None:
        """Tell the children how long they may start tasks; a lapse is told before the new end of the lease."""
        words = self.table.words
        if 0 < words[slots.DEADLINE_NS] < time.monotonic_ns():
            words[slots.LAPSES] += 1
            words[slots.GENERATION] += 1
        words[slots.DEADLINE_NS] = int((sent + self.post.lease_s * 0.9) * 1e9)

    def _call(self, script: Script, script_keys: Sequence[str], arguments: Sequence[Any]) -> tuple[Any, ...]:
        return ("EVALSHA", script.sha, len(script_keys), *script_keys, *arguments)

    def _pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send all, read all; a server that has forgotten the scripts is told them, and asked again."""
        assert self._link is not None
        link = self._link
        for attempt in (1, 2):
            link.send_packed_command(link.pack_commands(commands), check_health=False)
            answers: list[Any] = []
            missing: Exception | None = None
            for _ in commands:
                try:
                    answers.append(link.read_response())
                except NoScriptError as error:
                    missing = error
                except redis.ResponseError as error:
                    answers.append(error)
            if missing is None:
                return answers
            if attempt == 1:
                for script in (RENEW, PROMOTE):
                    self._ask(link, "SCRIPT", "LOAD", script.text)
        raise RedisError("the server forgets scripts as soon as it is told them")

    # -- later ------------------------------------------------------------------------------------------------------

    def _promotions(self) -> list[Sequence[Any]]:
        """For each queue: move what is due, and ask to be told when the delayed set changes."""
        commands: list[Sequence[Any]] = []
        for name in self.post.queues:
            lists: list[Any] = []
            for step in keys.PRIORITY_STEPS:
                lists += ("" if step == 0 else step, self.post.key_prefix + keys.priority_list(name, step))
            if self._tracks:
                commands.append(("CLIENT", "CACHING", "YES"))
            delayed = self.post.key_prefix + keys.delayed(name)
            commands.append(self._call(PROMOTE, [delayed], [PROMOTE_MOST, *lists]))
        self._noticed = False
        return commands

    def _promote(self) -> None:
        self._take_due(self._pipeline(self._promotions()))

    def _take_due(self, answers: Sequence[Any]) -> None:
        found = [answer for answer in answers if isinstance(answer, list)]
        errors = {str(answer) for answer in answers if isinstance(answer, Exception)}
        for error in errors - self._told:
            logger.error("delayed messages cannot be moved to their queue: %s", error)
        self._told = errors
        due = [float(first) / 1000 for _, first in found if first != b""]
        self._next_due_s = min(due, default=None)
        if self._next_due_s is not None and not any(moved for moved, _ in found):
            # Due, and yet not moved: its list cannot be written. Not asked again and again.
            self._next_due_s = max(self._next_due_s, time.time() + (STUCK_S if self._next_due_s < time.time() else 0))
        if any(moved >= PROMOTE_MOST for moved, _ in found):
            self._noticed = True

    # -- those who hold what they do not know, and those who are gone ------------------------------------------------

    def _look_for_strays(self, indexes: Sequence[int], held: Sequence[Sequence[int]]) -> None:
        """An idle child that holds messages has missed an answer; twice in a row, so that no turn is in between."""
        idle = set()
        for place, index in enumerate(indexes):
            state = self.table.slot(index).words[slots.STATE]
            if state == slots.IDLE and any(counts[place] for counts in held):
                idle.add(index)
        if idle:
            self._on_strays(idle)

    def _reap(self, expired: Sequence[Sequence[bytes]], workers: Sequence[bytes]) -> None:
        """Take over what consumers held whose leases ran out; not within one lease after our own (re)connect.

        After an outage longer than a lease every lease has run out although everybody lives.
        """
        if time.monotonic() - self._connected_at < self.post.lease_s:
            return
        names = {name.decode() for found in expired for name in found}
        ours = f"{self.post.worker_id}:"
        names = {name for name in names if not name.startswith(ours)}
        if names:
            self._settle_leftovers()
        for name in sorted(names):
            self._take_over(
                name, [q for q, found in zip(self.post.queues, expired, strict=True) if name.encode() in found]
            )
        for worker in workers:
            client(self.post.url).zrem(self.post.key_prefix + keys.WORKERS, worker)

    def _settle_leftovers(self) -> None:
        successor.settle_leftovers(self.post.slots_folder, self.post.url, self.judge, self.make_consumer)

    def make_consumer(self, queues: list[str], name: str) -> Consumer:
        """A line to the broker in somebody's name."""
        settler = self.judge.make_settler(queues)
        return Consumer(
            self.post.url, queues, name, results_db=settler.results.database, key_prefix=self.post.key_prefix
        )

    def _take_over(self, name: str, queues: list[str]) -> None:
        consumer = self.make_consumer(queues, name)
        try:
            consumer.connect()
            host = name.rsplit(":", 2)[0]
            count = successor.take_over(self.judge, consumer, f"{host} was lost, the task may have started")
            consumer.retire()
            if count:
                logger.warning("took over %d messages of %s, which was lost", count, name)
        except Alive:
            logger.info("%s is alive after all", name)
        finally:
            consumer.close()
