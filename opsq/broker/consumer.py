"""One consumer's line to the broker: turns (settle and lease), the wait for a notice, what it holds.

A consumer is used by one thread at a time. It raises RedisError; who calls reconnects (`connect`) and settles
again what has not been confirmed: a settlement is written at most once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from opsq.broker.broker import LUA
from opsq.broker.order import FAIR, QueueOrder, Rota
from opsq.broker.settlement import Settlement, Tallies
from opsq.datastore import keys
from opsq.datastore.line import Line
from opsq.datastore.priorities import PRIORITIES, Priorities
from opsq.datastore.scripts import Script
from opsq.datastore.trouble import NoScriptError, ResponseError

TURN = Script(LUA / "turn.lua", *(LUA / f"{name}.lua" for name in ("chord_functions", "later_functions", "lane")))
RETIRE = Script(LUA / "retire.lua")

#: A turn is answered within this time (seconds), or its connection is given up.
REPLY_S = 5.0
#: The most messages of one turn.
MOST = 500
#: Between the numbers of two turns' first messages: a late turn never meets another's numbers.
STRIDE = 1000


@dataclass(frozen=True, slots=True)
class Leased:
    """Messages leased from one list, in order; the first has the number `number`."""

    queue: int
    source: str
    number: int
    messages: list[bytes]


@dataclass(frozen=True, slots=True)
class Turn:
    """The answer to a turn: what could not be settled (number -> error), what was leased, how many are held now.

    `complete`: chords whose body is the caller's to send.
    """

    failed: dict[int, str]
    leased: list[Leased]
    held: int
    unregistered: bool
    complete: Sequence[str] = ()
    #: What has changed of circuits: task, word, ms, ...
    changed: Sequence[Any] = ()


class Alive(Exception):
    """The consumer whose messages were to be taken over is alive."""


class Consumer:
    """The messages of some queues in the name of one consumer (`<node>:<8 hex>:<slot>`)."""

    def __init__(
        self,
        url: str,
        queues: Sequence[str],
        name: str,
        *,
        results_db: int | None = None,
        key_prefix: str = "",
        priorities: Priorities = PRIORITIES,
        order: QueueOrder = FAIR,
        events_channel: str = "",
        number: int = 1,
    ) -> None:
        """`results_db`: the database of the results on this same server, None when turns store none; `number`: of the
        first message that it leases."""
        self.url, self.queues, self.name = url, list(queues), name
        self.key_prefix, self._priorities = key_prefix, priorities
        self._line = Line(url, reply_s=REPLY_S)
        self._line.on_push = self._notice
        self._db = str(self._line.db)
        self._results_db = "" if results_db is None or str(results_db) == self._db else str(results_db)
        self.stores = [key_prefix + keys.inflight(queue, name) for queue in self.queues]
        self.passes = [key_prefix + keys.passes(queue, name) for queue in self.queues]
        self.lists = [
            key_prefix + priorities.at_step(queue, step) for step in priorities.steps for queue in self.queues
        ]
        self._keys = [
            key
            for queue, store in zip(self.queues, self.stores, strict=True)
            for key in (store, key_prefix + keys.paused(queue))
        ] + self.lists
        self._count = len(self._keys)
        self._registries = [key_prefix + keys.consumers(queue) for queue in self.queues]
        self._totals = [key_prefix + keys.totals(queue) for queue in self.queues]
        self._events_channel = events_channel
        self._tallies = Tallies(self.queues, key_prefix)
        #: What its batches cost, for who runs them to note.
        self.costs = self._tallies.costs
        self._number = number
        self._rota = Rota(order, len(self.queues))
        self._sent: list[tuple[Any, ...]] = []
        self._revocations = key_prefix + keys.REVOKED
        #: When the last messages were leased something was revoked: maybe some of them.
        self.may_be_revoked = False
        self.noticed = False
        #: The last turn was armed and leased nothing: a notice comes when there is something.
        self.listening = False
        #: Until then (monotonic seconds; 0 = never) who is woken lets others go first: only they can run what comes.
        self.defers_until_s = 0.0
        self.tracks = False
        self.id: int | None = None

    # -- the connection ---------------------------------------------------------------------------------------------

    def connect(self, track: bool = False) -> None:
        """Connect anew; with `track` the server is asked for notices (`tracks` says whether it gives them).

        The connection before it is closed at the server too, if it allows that: what it still had on the way there is
        then never carried out.
        """
        before = self.id
        self._sent.clear()
        self._line.connect()
        self.id = self._line.ask("CLIENT", "ID")
        if before is not None:
            self._try("CLIENT", "KILL", "ID", before)
        self.noticed = self.listening = False
        self.tracks = track and self._try("CLIENT", "TRACKING", "ON", "OPTIN", "NOLOOP")

    def close(self) -> None:
        """Let go of the connection."""
        self._line.close()

    def _notice(self, push: Sequence[Any]) -> None:
        self.noticed = self.noticed or push[0] == b"invalidate"

    def _try(self, *command: Any) -> bool:
        try:
            self._line.ask(*command)
        except ResponseError:
            return False
        return True

    # -- turns ------------------------------------------------------------------------------------------------------

    def send(
        self, settlements: Sequence[Settlement], want: int, armed: bool = False, events: bytes | None = None
    ) -> None:
        """Send a turn; `receive` reads its answer. `armed`: ask for a notice when the lists it saw empty change.

        `events`: a message that the turn publishes.
        """
        self.listening = False
        if armed:
            self.noticed = False
        arguments = self._arguments(settlements, want, "", self._rota.next(want), events)
        self._sent.append((arguments, self._number, armed))
        self._number += STRIDE
        self._write(arguments, armed)

    def receive(self) -> Turn:
        """The answer to the oldest turn that was sent."""
        arguments, number, armed = self._sent[0]
        try:
            answer = self._answer(armed)
        except NoScriptError:
            # The script's hash, and with it CLIENT CACHING YES, is used up: say both again.
            self._write(("EVAL", TURN.text, *arguments[2:]), armed)
            answer = self._answer(armed)
        self._sent.pop(0)
        turn = self._read(answer, number)
        self.listening = armed and not (turn.leased or self._sent)
        return turn

    def turn(self, settlements: Sequence[Settlement], want: int, armed: bool = False) -> Turn:
        """A turn and its answer."""
        self.send(settlements, want, armed)
        return self.receive()

    def take_over(self, settlements: Sequence[Settlement]) -> Turn:
        """Settle in the name of this consumer if its lease has run out. Raises Alive when it has not."""
        arguments = self._arguments(settlements, 0, "expired", 0)
        try:
            answer = self._line.ask(*arguments)
        except NoScriptError:
            answer = self._line.ask("EVAL", TURN.text, *arguments[2:])
        if answer == b"alive":
            raise Alive(self.name)
        return self._read(answer, 0)

    def turn_only(self, settlements: Sequence[Settlement]) -> Turn:
        """Settle and lease nothing."""
        return self.turn(settlements, 0)

    def retire(self) -> bool:
        """Out of the registries of all queues where this consumer holds nothing; false when it holds something."""
        taken_out = [
            self._line.ask("EVAL", RETIRE.text, 2, registry, store, self.name)
            for registry, store in zip(self._registries, self.stores, strict=True)
        ]
        return all(taken_out)

    def _write(self, arguments: tuple[Any, ...], armed: bool) -> None:
        if armed:
            self._line.send(("CLIENT", "CACHING", "YES"), arguments)
        else:
            self._line.send(arguments)

    def _answer(self, armed: bool) -> Any:
        if armed:
            self._line.receive()
        return self._line.receive()

    def _arguments(
        self, settlements: Sequence[Settlement], want: int, guard: str, first: int | str, events: bytes | None = None
    ) -> tuple[Any, ...]:
        told = self._tallies.arguments(settlements)
        return (
            *("EVALSHA", TURN.sha, self._count, *self._keys, len(self.queues), want, self._number, self.name),
            *(self._results_db, self._db, first, guard, self._events_channel, events or b""),
            *self._registries,
            *self._totals,
            self._revocations,
            *told,
        )

    def _read(self, answer: Any, number: int) -> Turn:
        failed, leased, held, unregistered, revoked, complete, *more = answer
        if leased:
            self.may_be_revoked = bool(revoked)
        batches = []
        for index, messages in zip(leased[::2], leased[1::2], strict=True):
            place = index - 1
            batches.append(Leased(place % len(self.queues), self.lists[place], number, messages))
            number += len(messages)
        errors = {int(n): text.decode() for n, text in zip(failed[::2], failed[1::2], strict=True)} if failed else {}
        names = [name.decode() for name in complete] if complete else ()
        return Turn(errors, batches, held, bool(unregistered), names, *more)

    # -- waiting ----------------------------------------------------------------------------------------------------

    def readable(self, timeout_s: float) -> bool:
        """Whether something can be read within the time (seconds); reads nothing."""
        return self._line.readable(timeout_s)

    def arm(self, holds: bool = False) -> bool:
        """Ask for a notice without a turn; false when there is something, so that a turn is worth its while: a list is
        not empty, or this consumer holds messages although it should not. `holds`: it should.
        """
        self.noticed = False
        stores = () if holds else self.stores
        self._line.send(("CLIENT", "CACHING", "YES"), ("EXISTS", *self.lists, *stores))
        self._line.receive()
        self.listening = not self._line.receive()
        return self.listening

    def fileno(self) -> int:
        """The connection's descriptor, for who waits for other things too; -1 while there is none."""
        return self._line.fileno()

    def read_notices(self) -> None:
        """Read the pushes that have arrived; nothing else is on the way while one waits. Sets `noticed`."""
        self._line.read()

    # -- what is held -----------------------------------------------------------------------------------------------

    def holdings(self, most: int | None = None) -> list[dict[int, bytes]]:
        """For each queue what this consumer holds: number -> message; with `most` only so many, the newest."""
        if most is not None:
            return [self._newest(store, held, most) for store, held in zip(self.stores, self.numbers(), strict=True)]
        self._line.send(*[("HGETALL", store) for store in self.stores])
        answers = [self._line.receive() for _ in self.stores]
        return [{int(number): raw for number, raw in sorted(_pairs(answer), key=_by_number)} for answer in answers]

    def _newest(self, store: str, held: set[int], most: int) -> dict[int, bytes]:
        newest = sorted(held)[-most:]
        answer = self._line.ask("HMGET", store, *newest) if newest else []
        return {number: raw for number, raw in zip(newest, answer, strict=True) if raw is not None}

    def numbers(self) -> list[set[int]]:
        """For each queue the numbers of the messages that this consumer holds."""
        self._line.send(*[("HKEYS", store) for store in self.stores])
        return [{int(number) for number in self._line.receive()} for _ in self.stores]

    def list_of(self, queue: int, priority: int) -> str:
        """The list of a queue in which messages of a priority wait."""
        step = self._priorities.steps.index(self._priorities.step(priority))
        return self.lists[step * len(self.queues) + queue]

    def passed(self) -> list[set[int]]:
        """For each queue the numbers of the messages that hold a pass: they have something of their limits."""
        self._line.send(*[("HKEYS", passes) for passes in self.passes])
        return [{int(number) for number in self._line.receive()} for _ in self.passes]

    def limit_keys(self, queue: int) -> list[str]:
        """The keys that the limits of a queue's messages are about: store, passes, lanes, facts, totals."""
        name, prefix = self.queues[queue], self.key_prefix
        about = [prefix + key for key in (keys.lanes(name), keys.lane_facts(name), keys.totals(name))]
        return [self.stores[queue], self.passes[queue], *about]


def _pairs(answer: Any) -> Iterable[tuple[bytes, bytes]]:
    return answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)


def _by_number(pair: tuple[bytes, bytes]) -> int:
    return int(pair[0])
