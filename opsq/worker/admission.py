"""A child's check of limits: asks once for a whole batch which of its messages may run now.

Those that may not are moved to their lanes by the script that says so; those that may get a pass, which the turn that
settles them hands in (`Settler.hand_in`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opsq._state import broker_time
from opsq.broker.consumer import Consumer
from opsq.broker.limits import ADMIT
from opsq.datastore import keys
from opsq.datastore.line import Line
from opsq.protocol.envelope import Envelope
from opsq.worker.batch import Held
from opsq.worker.gate import Elsewhere, Later, Verdict
from opsq.worker.limits import Policy

REPLY_S = 5.0
#: A message that cannot be put into its lane is looked at again after this time (seconds).
STUCK_S = 1.0
#: One message with its lane: queue (index), lane, number, priority step (1..).
_Asked = tuple[int, str, int, int]


class Admission:
    """The limits of the messages of one consumer. `passed`: numbers of the messages that hold a pass."""

    def __init__(
        self, consumer: Consumer, worker_id: str, policy: Policy, accept: frozenset[str], changes: Callable[[], int]
    ) -> None:
        """`changes`: how often rates were set by command, as the parent tells it."""
        self.passed: set[int] = set()
        self._consumer, self._worker_id, self._policy, self._accept = consumer, worker_id, policy, accept
        self._changes, self._seen = changes, 0
        self._line = Line(consumer.url, reply_s=REPLY_S)
        self._steps = {source: index // len(consumer.queues) + 1 for index, source in enumerate(consumer.lists)}

    @property
    def on(self) -> bool:
        """Whether there is any limit."""
        changes = self._changes()
        if changes != self._seen:
            self._learn()
            self._seen = changes
        return self._policy.on

    def look(self, messages: Sequence[tuple[Held, Envelope]]) -> Mapping[int, Verdict]:
        """Ask for all messages that are under a limit. Raises RedisError; asking again changes nothing."""
        asked = [found for each in messages if (found := self._asked(*each)) is not None]
        if not asked:
            return {}
        parked, stuck = self._ask(asked)
        self.passed.update(number for _queue, _lane, number, _step in asked)
        self.passed.difference_update(parked, stuck)
        later = Later(int((broker_time() + STUCK_S) * 1000))
        return {**dict.fromkeys(parked, Elsewhere()), **dict.fromkeys(stuck, later)}

    def _asked(self, held: Held, message: Envelope) -> _Asked | None:
        queue = self._consumer.queues[held.queue]
        lane = self._policy.lane(queue, message, self._accept)
        if lane is None or self._policy.facts(queue, lane) is None:
            return None
        return held.queue, lane, held.number, self._steps[held.source]

    def _ask(self, asked: Sequence[_Asked]) -> tuple[list[int], list[int]]:
        groups: dict[tuple[int, str], list[int]] = {}
        for queue, lane, number, step in asked:
            groups.setdefault((queue, lane), []).extend((number, step))
        names: list[str] = []
        arguments: list[Any] = [self._worker_id]
        for (queue, lane), told in groups.items():
            names += self._consumer.limit_keys(queue)
            facts = self._policy.facts(self._consumer.queues[queue], lane)
            arguments += (lane, facts, len(told) // 2, *told)
        answer = self._call(names, arguments)
        parked, stuck = ([int(number) for number in numbers] for numbers in answer)
        return parked, stuck

    def _call(self, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        try:
            return ADMIT.ask(self._line.ask, names, arguments)
        except BaseException:
            self._line.close()  # its answer must not be taken for the next one's
            raise

    def _learn(self) -> None:
        """Rates that were set by command: those of the cluster, and those of this worker, from its record."""
        prefix = self._consumer.key_prefix
        try:
            self._line.send(("HGETALL", prefix + keys.RATE_LIMITS), ("GET", prefix + keys.worker(self._worker_id)))
            cluster, record = self._line.receive(), self._line.receive()
        except BaseException:
            self._line.close()
            raise
        own = json.loads(record).get("rate_limits") if record else None
        self._policy.set_rates(as_rates(cluster), own or {})


def as_rates(answer: Any) -> dict[str, str]:
    """The answer to HGETALL, in either protocol."""
    pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
    return {task.decode(errors="replace"): rate.decode(errors="replace") for task, rate in pairs}
