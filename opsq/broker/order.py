"""From which queue a consumer takes first, and how much: in turn, in a strict order, or by weights.

Within one priority only: what is more urgent comes first, in whatever queue it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from opsq.exceptions import ImproperlyConfigured

#: What kombu calls its ways (`queue_order_strategy` of the transport options).
_KOMBUS = {"round_robin": "fair", "priority": "strict", "sorted": "sorted"}


@dataclass(frozen=True, slots=True)
class QueueOrder:
    """How a worker chooses among its queues: in turn (fair), as they are listed (strict), or by weights."""

    way: Literal["fair", "strict", "weights"] = "fair"
    weights: tuple[int, ...] = ()

    @classmethod
    def of(cls, wanted: Any, strategy: Any, queues: list[str]) -> tuple[QueueOrder, list[str]]:
        """From the setting `worker_queue_order`, else kombu's strategy; and the queues in the order of taking.

        Raises ImproperlyConfigured.
        """
        if wanted is None:
            wanted = _KOMBUS.get(str(strategy or "round_robin"), "fair")
            if wanted == "sorted":
                return cls("strict"), sorted(queues)
        if wanted in ("fair", "strict"):
            return cls(wanted), queues
        if isinstance(wanted, Mapping) and all(type(each) is int and each > 0 for each in wanted.values()):
            return cls("weights", tuple(wanted.get(name, 1) for name in queues)), queues
        raise ImproperlyConfigured(
            f"cannot use worker_queue_order = {wanted!r}",
            hint='say "fair", "strict", or weights such as {"mail": 3, "slow": 1} (whole numbers above 0)',
        )


FAIR = QueueOrder()


class Rota:
    """The order of one consumer, turn by turn."""

    def __init__(self, order: QueueOrder, count: int) -> None:
        """`count`: how many queues there are."""
        self._order, self._count = order, count
        self._first = 0
        self._shares = [weight / sum(order.weights) for weight in order.weights]
        #: What each queue has been given too little, in messages; less than one.
        self._owed = [0.0] * len(self._shares)

    def next(self, want: int) -> int | str:
        """The argument of the next turn: which queue comes first (0..), or `queues;how much each may take first`.

        What a queue leaves of its part the others get; nobody saves anything up or owes it.
        """
        if self._order.way == "strict":
            return 0
        if self._order.way == "fair":
            self._first = (self._first + 1) % self._count
            return self._first
        wished = [owed + want * share for owed, share in zip(self._owed, self._shares, strict=True)]
        parts = [max(int(each), 0) for each in wished]
        while sum(parts) < want:
            neediest = max(range(self._count), key=lambda index: wished[index] - parts[index])
            parts[neediest] += 1
        self._owed = [wish - part for wish, part in zip(wished, parts, strict=True)]
        ranking = sorted(range(self._count), key=lambda index: -self._owed[index])
        return f"{','.join(map(str, ranking))};{','.join(map(str, parts))}"
