"""What a child holds at the broker: in hand, finished, sent to be settled; and how doubt about it is resolved.

A message is in the child's in-flight store until the turn that settles it. Two threads use a ledger (the runner and the
stall thread): whoever speaks to the broker holds `io`. Errors of Redis leave it as it is; `reconnect` then puts it in
order: it settles again what was not confirmed (which writes nothing twice) and compares what is held with what is
known.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from opsq.broker.consumer import Consumer, Leased, Turn
from opsq.broker.settlement import Settlement
from opsq.datastore.trouble import RedisConnectionError
from opsq.exceptions import DecodeError
from opsq.protocol.envelope import parse
from opsq.worker import slots
from opsq.worker.batch import Held
from opsq.worker.limits import tell_changes
from opsq.worker.settle import Settler
from opsq.worker.slots import Slot

logger = logging.getLogger("opsq.worker")

#: A settlement whose writes fail this often goes to the dead letters instead.
TRIES = 3


class Ledger:
    """The accounts of one child; `waiting` is what it has in hand and not started."""

    def __init__(
        self, consumer: Consumer, settler: Settler, slot: Slot, take_events: Callable[[], bytes | None] = lambda: None
    ) -> None:
        """`take_events`: what the next turn publishes."""
        self.consumer, self.settler, self._slot = consumer, settler, slot
        self._take_events = take_events
        self.waiting: deque[Held] = deque()
        self.io = threading.Lock()
        #: True when what is held may not be what is known: to be compared before anything else is run.
        self.doubt = False
        self._finished: deque[Settlement] = deque()
        self._sent: deque[list[Settlement]] = deque()
        #: An answer went missing on this connection: what was sent on it is not answered any more.
        self._broken = False
        self._hopeless: dict[int, tuple[Settlement, str]] = {}
        #: Numbers of the messages that hold a pass.
        self.passed: set[int] = set()
        self._held = 0
        self._book = 0

    # -- what has ended ---------------------------------------------------------------------------------------------

    def settle(self, settlement: Settlement) -> None:
        """To be settled with the next turn."""
        self._finished.append(settlement)

    def settle_run(self, settlement: Settlement) -> None:
        """The same for a message whose turn to run has come: how it ended is noted until the broker has confirmed it.

        Noted last: when the stall thread sends it in between, a note that is not needed any more is left for a while.
        """
        self._finished.append(settlement)
        if settlement.count or settlement.word != "succeeded":
            self._slot.note(self._book, settlement.noted())
        else:
            self._slot.note_success(self._book, settlement.number)

    def settles(self, number: int) -> bool:
        """Whether a message is to be settled with the next turn."""
        return any(settlement.number == number for settlement in list(self._finished))

    def running(self) -> list[int]:
        """The numbers of the messages that are being run."""
        current = self._slot.words[slots.CURRENT]
        return [current] if current else []

    @property
    def owes(self) -> bool:
        """Whether something is to be settled, or its confirmation is awaited."""
        return bool(self._finished or any(self._sent))

    @property
    def idle(self) -> bool:
        """Nothing is finished, nothing is on the way."""
        return not (self._finished or self._sent)

    @property
    def awaits_answer(self) -> bool:
        """Whether a turn is on the way."""
        return bool(self._sent)

    def return_waiting(self) -> None:
        """Everything in hand goes back to the head of its list, the newest first."""
        while True:
            try:
                held = self.waiting.pop()
            except IndexError:
                return
            self.settle(self.settler.back(held.queue, held.number, held.source, held.raw))

    # -- turns (the caller holds `io`) ------------------------------------------------------------------------------

    def begin_batch(self) -> int:
        """Write down from which number on messages may count as started; returns how many are in hand."""
        if self.waiting:
            # In the order in which messages go on: none of them is overlooked on its way.
            numbers = [self.waiting[0].number, *self.running()]
            numbers += [settlement.number for settlement in list(self._finished)]
            numbers += [settlement.number for sent in self._sent for settlement in sent]
            self._slot.words[slots.FIRST] = min(numbers)
        return len(self.waiting)

    def send(self, want: int, armed: bool = False) -> None:
        """Send a turn that settles all that is finished.

        What ends from now on goes into the other notebook; this one is wiped when the turn is answered.
        """
        settlements = []
        self._book ^= 1
        while self._finished:
            settlements.append(self._finished.popleft())
        self._sent.append(settlements)
        refused = self.settler.store_elsewhere(settlements)
        if refused:
            self._try_again([settlement for settlement in settlements if settlement.number in refused], refused)
            settlements[:] = [settlement for settlement in settlements if settlement.number not in refused]
        if self.passed:
            self._hand_in(settlements)
        self.consumer.send(settlements, want, armed, self._take_events())

    def _hand_in(self, settlements: list[Settlement]) -> None:
        """The passes of what is settled."""
        for settlement in settlements:
            if settlement.number in self.passed:
                self.settler.hand_in(settlement, self.consumer.passes[settlement.queue])

    def receive(self) -> Turn:
        """Take the answer to the oldest turn that was sent.

        Where one went missing, the next one would be taken for it, or be awaited in vain: the line is lost.
        """
        if self._broken:
            raise RedisConnectionError("an answer went missing")
        try:
            turn = self.consumer.receive()
        except BaseException:
            self._broken = True
            raise
        self._take(turn)
        return turn

    def take(self, turn: Turn) -> None:
        """Take the answer to a turn that settled nothing and was sent past the ledger (the waiter's)."""
        self._sent.append([])
        self._take(turn)

    def agrees(self, turn: Turn) -> bool:
        """Whether a turn that leased nothing shows as many messages as are known."""
        return turn.held == self._held

    def _take(self, turn: Turn) -> None:
        settled = self._sent.popleft()
        for name in turn.complete:
            self.settler.on_complete(name)
        self._held -= len(settled) - len(turn.failed)
        if not self._sent:
            self._slot.wipe(self._book ^ 1)
        if self.passed:
            self.passed.difference_update(each.number for each in settled if each.number not in turn.failed)
        if turn.changed:
            tell_changes(turn.changed)
        for leased in turn.leased:
            self._add(leased)
        if turn.failed:
            self._try_again([settlement for settlement in settled if settlement.number in turn.failed], turn.failed)
        if turn.held != self._held:
            self.doubt = True

    def _add(self, leased: Leased) -> None:
        number = leased.number
        for raw in leased.messages:
            self.waiting.append(Held(number, leased.queue, leased.source, raw))
            number += 1
        self._held += len(leased.messages)

    def _try_again(self, settlements: list[Settlement], errors: dict[int, str]) -> None:
        """Writes that did not go through are tried again, and after that the message goes to the dead letters."""
        for settlement in settlements:
            settlement.tries += 1
            if settlement.tries < TRIES:
                self.settle(settlement)
            else:
                self._hopeless[settlement.number] = settlement, errors[settlement.number]
                self.doubt = True

    # -- doubt (the caller holds `io`) ------------------------------------------------------------------------------

    def reconnect(self) -> None:
        """Connect anew, settle again what was not confirmed, and compare."""
        self.consumer.connect(track=True)
        self._broken = False
        for sent in reversed(self._sent):
            self._finished.extendleft(reversed(sent))
        self._sent.clear()
        if self._finished:
            self.send(0)
            self.receive()
        self._match()

    def compare(self) -> None:
        """Look at the store, when nothing is on the way any more."""
        if self._broken:
            self.reconnect()
            return
        while self._sent:
            self.receive()
        self._match()

    def _match(self) -> None:
        """Give back what is held and not known (the answer to its turn was lost), drop what is known and not held."""
        self.doubt = False
        if self._hopeless:
            self._bury(self.consumer.holdings())
        # In the order in which messages go on: none of them is overlooked on its way.
        known = {held.number for held in self.waiting}
        known.update(self.running())
        known.update(settlement.number for settlement in list(self._finished))
        there = self.consumer.numbers()
        stray = [numbers - known for numbers in there]
        held = set().union(*there)
        taken_over = [message for message in self.waiting if message.number not in held]
        for message in reversed(taken_over):
            self.waiting.remove(message)
            # It was not started. Who took it over may have taken it for lost: then it goes back to its queue.
            self.settle(self.settler.back(message.queue, message.number, message.source, message.raw))
        self._held = (self._return(stray) if any(stray) else len(held)) + len(taken_over)

    def _return(self, stray: list[set[int]]) -> int:
        """Give back what is held and not known; returns how many messages are held after that."""
        holdings = self.consumer.holdings()
        settlements = []
        for queue, numbers in enumerate(stray):
            for number in sorted(numbers & holdings[queue].keys(), reverse=True):
                raw = holdings[queue][number]
                settlements.append(self.settler.back(queue, number, self._list_of(queue, raw), raw))
        turn = self.consumer.turn(settlements, 0)
        for number, error in turn.failed.items():
            logger.error("message %s cannot be given back to its queue and stays in flight: %s", number, error)
        return turn.held

    def _bury(self, holdings: list[dict[int, bytes]]) -> None:
        """Dead letters in place of outcomes that cannot be written."""
        for settlement, error in self._hopeless.values():
            raw = holdings[settlement.queue].get(settlement.number, b"")
            # Told at first; if that cannot be written either, buried without a word.
            tell = settlement.tries == TRIES
            self.settler.bury(settlement, self._list_of(settlement.queue, raw), raw, error, tell)
            self.settle(settlement)
        self._hopeless.clear()

    def _list_of(self, queue: int, raw: bytes) -> str:
        """The list a message came from, by its priority."""
        try:
            return self.consumer.list_of(queue, parse(raw).properties.priority or 0)
        except DecodeError:
            return self.consumer.list_of(queue, 0)
