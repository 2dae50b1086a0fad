"""A state machine over the turn: two consumers publish, lease, settle, give back, crash, lose answers and take over.

After every step each message is in exactly one place, the books balance, and in the end each was done or is waiting.
"""

from __future__ import annotations

from collections import Counter

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from opsq.broker import audit
from opsq.broker.broker import Broker
from opsq.broker.consumer import Consumer
from opsq.broker.settlement import Settlement
from opsq.datastore import keys

QUEUE = "celery"
SIDES = st.sampled_from([0, 1])


class Turns(RuleBasedStateMachine):
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.redis = redis.Redis.from_url(self.url)
        self.redis.flushdb()
        self.sent: list[bytes] = []
        self.done: Counter[bytes] = Counter()
        self.generation = 0
        self.names = ["", ""]
        self.known: list[dict[int, bytes]] = [{}, {}]
        self.consumers: list[Consumer] = []
        for side in (0, 1):
            self.consumers.append(self._new(side))

    def _new(self, side: int) -> Consumer:
        self.generation += 1
        name = f"w@h:{self.generation:08x}:0"
        self.redis.zadd(keys.consumers(QUEUE), {name: 9e15})
        consumer = Consumer(self.url, [QUEUE], name)
        consumer.connect()
        self.names[side], self.known[side] = name, {}
        return consumer

    def teardown(self) -> None:
        for consumer in self.consumers:
            consumer.close()
        self.redis.close()

    @rule(count=st.integers(1, 5))
    def publish(self, count: int) -> None:
        for _ in range(count):
            self.sent.append(b"m%d" % len(self.sent))
            self.redis.lpush(QUEUE, self.sent[-1])

    @rule(side=SIDES, want=st.integers(0, 4), finish=st.integers(0, 4))
    def turn(self, side: int, want: int, finish: int) -> None:
        finished = dict(list(self.known[side].items())[:finish])
        turn = self.consumers[side].turn([Settlement(0, number, word="succeeded") for number in finished], want)
        for number, message in finished.items():
            del self.known[side][number]
            self.done[message] += 1
        self._learn(side, turn)

    def _learn(self, side: int, turn: object) -> None:
        for leased in turn.leased:  # type: ignore[attr-defined]
            for offset, message in enumerate(leased.messages):
                self.known[side][leased.number + offset] = message
        assert turn.held == len(self.known[side])  # type: ignore[attr-defined]

    @rule(side=SIDES)
    @precondition(lambda self: any(self.known))
    def give_back(self, side: int) -> None:
        newest_first = sorted(self.known[side].items(), reverse=True)
        self.consumers[side].turn([Settlement(0, n, ("H", QUEUE, m), 1) for n, m in newest_first], 0)
        self.known[side] = {}

    @rule(side=SIDES, want=st.integers(1, 4))
    def lose_an_answer(self, side: int, want: int) -> None:
        """The turn is carried out, its answer is lost; the count of the next one shows it, and the strays go back."""
        consumer = self.consumers[side]
        consumer.send((), want)
        consumer.receive()
        turn = consumer.turn((), 0)
        if turn.held != len(self.known[side]):
            (held,) = consumer.holdings()
            strays = sorted(set(held) - set(self.known[side]), reverse=True)
            consumer.turn([Settlement(0, number, ("H", QUEUE, held[number]), 1) for number in strays], 0)
        assert consumer.turn((), 0).held == len(self.known[side])

    @rule(side=SIDES)
    def crash_and_take_over(self, side: int) -> None:
        """Its lease runs out, a peer gives back what it held; the zombie's late settlement changes nothing."""
        name, zombie, held = self.names[side], self.consumers[side], self.known[side]
        self.redis.zadd(keys.consumers(QUEUE), {name: 1})
        peer = Consumer(self.url, [QUEUE], name)
        peer.connect()
        newest_first = sorted(peer.holdings()[0].items(), reverse=True)
        peer.take_over([Settlement(0, n, ("H", QUEUE, m), 1) for n, m in newest_first])
        peer.close()
        assert zombie.turn([Settlement(0, n, ("L", QUEUE, b"never"), 1) for n in held], 0).held == 0
        zombie.close()
        self.redis.zrem(keys.consumers(QUEUE), name)
        self.consumers[side] = self._new(side)

    @invariant()
    def every_message_is_in_exactly_one_place(self) -> None:
        places = Counter(self.redis.lrange(QUEUE, 0, -1))
        for name in self.names:
            places.update(self.redis.hvals(keys.inflight(QUEUE, name)))
        places.update(self.done)
        assert places == Counter(self.sent)

    @invariant()
    def the_books_balance(self) -> None:
        (books,) = audit.balances(Broker(self.url), [QUEUE])
        assert (books.missing, books.sent) == (0, len(self.sent))
        assert books.ended.get("succeeded", 0) == self.done.total()


@pytest.mark.usefixtures("redis_client")
def test_whatever_happens_each_message_is_in_exactly_one_place(redis_url: str) -> None:
    Turns.url = redis_url
    run_state_machine_as_test(Turns, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))
