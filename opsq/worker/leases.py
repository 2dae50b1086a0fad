"""The worker's thread at the broker: renews its leases, and does all else that its parent wants of Redis.

One pipeline every third of the lease and a sign of life every few seconds are all that an idle worker sends besides its
waiter's look. What is due (`later`, `limited`), who is gone (`rescue`) and what is told (`pulse`) have files of their
own. So the parent itself never waits for Redis.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from opsq.broker.exchanges import announcement
from opsq.broker.limits import RELEASE
from opsq.datastore import keys
from opsq.datastore.line import Line
from opsq.datastore.server_time import in_s
from opsq.datastore.trouble import TROUBLE, NoScriptError, RedisError, ResponseError
from opsq.protocol.routing import Binding
from opsq.runtime.backoff import delay_s
from opsq.runtime.bell import Bell
from opsq.runtime.ready import readable
from opsq.worker import slots
from opsq.worker.broadcasts import Broadcasts
from opsq.worker.broker_clock import BrokerClock
from opsq.worker.later import PROMOTE, Later
from opsq.worker.limit_options import Ruling
from opsq.worker.limited import Limited
from opsq.worker.post import Post
from opsq.worker.pulse import Pulse
from opsq.worker.renewal import Renewal, Standing
from opsq.worker.rescue import Rescue
from opsq.worker.slots import Slots

logger = logging.getLogger("opsq.worker")

#: Where many consume the same queues each asks less often what is due: at least once in so many leases.
MOST_LEASES = 20
#: The least time between two looks at the delayed sets (seconds).
LATER_PAUSE_S = 0.01
REPLY_S = 5.0
#: How often the broker is tried in a row while the worker ends.
LAST_TRIES = 4


class Leases(threading.Thread):
    """Runs until `end`; `ready` is set when the first renewal was answered."""

    def __init__(
        self,
        post: Post,
        table: Slots,
        rescue: Rescue,
        pulse: Pulse,
        limited: Limited,
        broadcasts: Broadcasts,
        describe: Callable[[], dict[str, Any]],
        on_strays: Callable[[set[int]], None],
    ) -> None:
        """`describe` tells what the worker runs; `on_strays(slots)`: idle children that hold messages unknowingly."""
        super().__init__(name="opsq-leases", daemon=True)
        self.post, self.table, self.rescue, self._pulse = post, table, rescue, pulse
        self._describe, self._on_strays = describe, on_strays
        self.limited, self._broadcasts = limited, broadcasts
        self._movers = (Later(post.queues, post.key_prefix, post.priorities), limited)
        #: The slots whose consumers are registered, and with which queues.
        self.registered: dict[int, list[str]] = {}
        self.ready = threading.Event()
        self.trouble = ""
        #: Called with each message that comes to the mailbox.
        self.on_command: Callable[[bytes], None] = lambda _payload: None
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._bell = Bell()
        self._clock = BrokerClock(table)
        self._ending = False
        self._sharers = 1
        self._wanted, self._bindings = post.queues, dict(post.bindings)
        self._line = Line(post.url, reply_s=REPLY_S)
        self._line.on_push = self._on_push
        self._connected = self._tracks = False
        self._connected_at = self._next_renewal = self._looked_at = 0.0

    # -- what the parent calls --------------------------------------------------------------------------------------

    def submit(self, job: Callable[[], None]) -> None:
        """Do something with Redis in this thread; tried again until it works."""
        self._jobs.put(job)
        self._wake()

    def register(self, indexes: list[int], queues: list[str], then: Callable[[], None]) -> None:
        """Register the consumers of slots with queues, then say so."""

        def job() -> None:
            self.registered.update(dict.fromkeys(indexes, queues))
            self._renew()
            then()

        self.submit(job)

    def consume(self, queues: list[str], bindings: Mapping[str, Sequence[Binding]]) -> None:
        """From now on these are the worker's queues; those that older children still consume are kept too."""
        self._bindings = {**self._bindings, **bindings}
        self._wanted = queues

    def end(self) -> None:
        """Stop after the jobs that are waiting."""
        self._ending = True
        self._wake()

    def _wake(self) -> None:
        self._bell.ring()

    # -- the thread -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Renew, promote and do jobs until told to end."""
        failures, job = 0, None
        while True:
            try:
                if not self._connected:
                    self._connect()
                    self._renew()
                    self.ready.set()
                while True:
                    job = job or self._next_job()
                    if job is None:
                        break
                    job()
                    job = None
                self._pulse.tell_lost(self._line)
                if self.trouble:
                    logger.info("the broker is back")
                failures, self.trouble = 0, ""
                self._broadcasts.keep(self.ask_all, self.post)
                if self._ending:
                    return
                self._pass_time()
            except Exception as error:
                if not isinstance(error, TROUBLE):  # of ours: leases must be renewed whatever happens
                    logger.critical("the thread of the leases stumbled over a job and goes on", exc_info=True)
                    job = None
                self._lost(error)
                failures += 1
                if self._ending and failures > LAST_TRIES:
                    return
                time.sleep(delay_s(failures, first_s=0.05, most_s=1.0))

    def _next_job(self) -> Callable[[], None] | None:
        try:
            return self._jobs.get_nowait()
        except queue.Empty:
            return None

    def _lost(self, error: Exception) -> None:
        if not self.trouble:
            logger.warning("cannot renew the leases, trying again: %s", error)
        self.trouble = str(error) or type(error).__name__
        self._line.close()
        self._connected = False

    def _connect(self) -> None:
        self._line.connect()
        self._tracks = True
        try:
            self._line.ask("CLIENT", "TRACKING", "ON", "OPTIN", "NOLOOP")
        except ResponseError:
            self._tracks = False
        self._listen_to_commands()
        self._broadcasts.listen(self._line, self.post, anew=True)
        self._load_scripts()
        self._announce_queues()
        sent = time.monotonic()
        self._clock.told(sent, in_s(self._line.ask("TIME")))
        self._learn_limits()
        self._connected, self._connected_at = True, time.monotonic()
        self._next_renewal = self._looked_at = 0.0

    def _load_scripts(self) -> None:
        for script in (PROMOTE, RELEASE):
            self._line.ask("SCRIPT", "LOAD", script.text)

    def _learn_limits(self) -> None:
        """The limits as they are now, here and in the children."""
        if self.limited.learn(self._line):
            self.table.words[slots.LIMITS] += 1

    def rule(self, ruling: Ruling) -> None:
        """The limits of tasks and queues are others (after a reload)."""

        def job() -> None:
            self.limited.policy.rule(ruling)
            self._learn_limits()
            self.limited.noticed = True
            self._next_renewal = 0.0  # the worker's record names the tasks of the new code

        self.submit(job)

    def change_rate(self, task: str, rate: str, own: bool) -> None:
        """A rate was set by command: for this worker alone, or for the cluster (and it stands in Redis)."""
        if own:
            self.limited.own_rates[task] = rate
            self._renew()  # the worker's record has it: children read it there
        self._learn_limits()
        self.limited.noticed = True

    def _listen_to_commands(self) -> None:
        """Its confirmation is a push, its refusal an answer: the answer to PING comes after either."""
        if not self._pulse.mailbox:
            return
        self._line.send(("SUBSCRIBE", self._pulse.mailbox), ("PING",))
        try:
            self._line.receive()
        except ResponseError:
            self._line.receive()

    def _on_push(self, push: Sequence[Any]) -> None:
        if push[0] == b"invalidate":
            for mover in self._movers:
                mover.noticed = True
        elif push[0] == b"pmessage":
            self._broadcasts.hear(push[1], push[3])
        elif push[0] == b"message":
            self.on_command(push[2])

    def _pass_time(self) -> None:
        """Sleep until something is to be done, or a notice or a job comes; then do it."""
        now = time.monotonic()
        moments = [self._next_renewal]
        if self._pulse.next_at is not None:
            moments.append(self._pulse.next_at)
        moments += [now + mover.due_in_s for mover in self._movers if mover.due_in_s is not None]
        if not any(mover.noticed for mover in self._movers):
            self._sleep(min(moments) - now)
        now = time.monotonic()
        if now >= self._next_renewal:
            self._renew()
        elif due := [mover for mover in self._movers if mover.noticed or mover.due_in_s == 0]:
            time.sleep(LATER_PAUSE_S)
            for mover in due:
                mover.take(self.ask_all(mover.commands(self._tracks)))
        if self._pulse.next_at is not None and now >= self._pulse.next_at:
            self._pulse.beat(self._line)

    def _sleep(self, seconds: float) -> None:
        if self._line.readable(0):  # what came together with an answer is not in the socket any more
            self._line.read()
            return
        for descriptor in readable([self._bell.reader, self._line.fileno()], max(seconds, 0) + 0.001):
            if descriptor == self._bell.reader:
                self._bell.read()
            else:
                self._line.read()

    # -- renewing ---------------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        """One pipeline: the leases of all consumers on their queues, the worker's own, and what is due."""
        self._look_at_queues()
        post = self.post
        staying = {index: queues for index, queues in sorted(self.registered.items()) if not self._leaves(index)}
        consumers = [[index for index, queues in staying.items() if name in queues] for name in post.queues]
        sent = time.monotonic()
        renewal = Renewal(post, consumers, self._clock.reckoned_ms(sent))
        info = json.dumps(self._describe())
        record = ("SET", post.key_prefix + keys.worker(post.worker_id), info, "PX", int(3000 * post.lease_s))
        looks = self._looks_for_due()
        moves = [mover.commands(self._tracks) if looks else [] for mover in self._movers]
        life = self._pulse.rides(sent + post.lease_s / 3)
        parts = [renewal.commands, [record, self.limited.rates_question()], *moves, self._exchanges(), life]
        leases, others, later, limited, _bound, heard = self._ask_parts(parts)
        if life:
            self._pulse.rode(heard[0])
        standing, (_kept, rates) = renewal.read(leases), others
        for answer in others:
            if isinstance(answer, Exception):
                raise answer
        self._extend(sent)
        self._next_renewal = sent + post.lease_s / 3
        was_right = self._clock.told(sent, standing.time_s)
        if not was_right:  # the leases end too early or too late, and who is gone is not known
            self._next_renewal = 0.0
        self.table.words[slots.CROWD], self._sharers = standing.crowd, standing.fewest
        if looks:
            self._movers[0].take(later)
            self._movers[1].take(limited)
            self._looked_at = sent
        if self.limited.differs(rates):
            self._learn_limits()
        self._look_for_strays(consumers, standing.held)
        if was_right:
            self._look_for_the_lost(standing)

    def _look_for_the_lost(self, standing: Standing) -> None:
        """Take over from who is gone. After an outage longer than a lease every lease has run out although everybody
        lives.
        """
        if time.monotonic() - self._connected_at >= self.post.lease_s:
            self.rescue.reap(self._line, standing.expired, standing.gone, self._next_renewal)
        self.rescue.restore_celerys(self._line)

    def _looks_for_due(self) -> bool:
        """Whether what is due is asked for with this renewal: while nothing is, a notice tells of it, and once a lease
        it is asked for all the same, by somebody of those who consume the same queues."""
        pause_s = self.post.lease_s * min(max(self._sharers, 1), MOST_LEASES)
        if not self._tracks or time.monotonic() - self._looked_at >= pause_s:
            return True
        return any(mover.noticed or mover.due_in_s is not None for mover in self._movers)

    def _look_at_queues(self) -> None:
        """The queues are those that are wanted and those that a child still consumes (after a reload)."""
        held = [name for queues in self.registered.values() for name in queues]
        queues = list(dict.fromkeys([*self._wanted, *held]))
        if queues != self.post.queues:
            self.post = self.rescue.post = replace(self.post, queues=queues, bindings=dict(self._bindings))
            self._movers = (Later(queues, self.post.key_prefix, self.post.priorities), self.limited)
            self.limited.look_after(self.post)
            self._looked_at = 0.0
            self._announce_queues()
            self._broadcasts.listen(self._line, self.post)

    def _announce_queues(self) -> None:
        post = self.post
        for name in post.queues:
            self.ask_all(announcement(name, post.bindings.get(name, ()), post.key_prefix, post.priorities))

    def _exchanges(self) -> list[tuple[Any, ...]]:
        """What binds queues to exchanges that others send to: should it be lost, it comes back."""
        post = self.post
        bound = [(name, post.bindings.get(name, ())) for name in post.queues]
        return [
            command
            for name, bindings in bound
            if any(each != Binding(name, name) for each in bindings)
            for command in announcement(name, bindings, post.key_prefix, post.priorities)
        ]

    def lists(self) -> dict[str, str]:
        """The lists of all its queues, each with its queue."""
        prefix, lists = self.post.key_prefix, self.post.priorities.lists
        return {prefix + each: name for name in self.post.queues for each in lists(name)}

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

    def ask_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send all, read all; a server that has forgotten the scripts is told them, and asked again."""
        for attempt in (1, 2):
            self._line.send(*commands)
            answers: list[Any] = []
            missing: Exception | None = None
            for _ in commands:
                try:
                    answers.append(self._line.receive())
                except NoScriptError as error:
                    missing = error
                except ResponseError as error:
                    answers.append(error)
            if missing is None:
                return answers
            if attempt == 1:
                self._load_scripts()
        raise RedisError("the server forgets scripts as soon as it is told them")

    def _ask_parts(self, parts: Sequence[Sequence[tuple[Any, ...]]]) -> list[list[Any]]:
        """The same for commands in parts; the answers to each part."""
        answers = iter(self.ask_all([command for part in parts for command in part]))
        return [list(islice(answers, len(part))) for part in parts]

    def _look_for_strays(self, consumers: Sequence[Sequence[int]], held: Sequence[Sequence[int]]) -> None:
        """An idle child that holds messages has missed an answer."""
        holders = {
            index
            for indexes, counts in zip(consumers, held, strict=True)
            for index, count in zip(indexes, counts, strict=True)
            if count
        }
        idle = {index for index in holders if self.table.slot(index).words[slots.STATE] == slots.IDLE}
        if idle:
            self._on_strays(idle)

    def sign_off(self) -> None:
        """Say that the worker has gone; nobody has to take over from it."""
        self._pulse.bye(self._line)
        post = self.post
        gone = ("ZREM", post.key_prefix + keys.WORKERS, post.worker_id)
        record = ("DEL", post.key_prefix + keys.worker(post.worker_id))
        self._line.ask_all([gone, record, *self._broadcasts.farewell(post)])
