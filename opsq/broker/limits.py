"""Limits as Redis knows them: gates, and the lanes in which messages wait for them (lua/lane.lua)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from opsq.broker.broker import LUA
from opsq.datastore import keys
from opsq.datastore.priorities import Priorities
from opsq.datastore.scripts import Script

LANE = LUA / "lane.lua"
ADMIT = Script(LUA / "admit.lua", LANE)
RELEASE = Script(LUA / "release.lua", LANE)

#: A start may come so much early (us) without being too much: messages come in batches, and workers look now and then.
EARLY_US = 20_000
#: The lane of messages that are under the limits of their queue only.
QUEUE_LANE = "*"
#: Between the name of a task and its keys in the name of a lane or a limit.
BAR = "|"

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}

Gate = list[Any]


@dataclass(frozen=True, slots=True)
class Circuit:
    """A circuit breaker: `fail_max` failures in a row open it for `reset_s` seconds, each time twice as long, up to
    `longest_s`.
    """

    fail_max: int
    reset_s: float = 30.0
    longest_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a task or a queue may do. `rate`: starts per second, 0 = any; `own`: each worker has the rate for itself;
    `places`: how many run at once, 0 = any.
    """

    rate: float = 0.0
    own: bool = False
    places: int = 0
    circuit: Circuit | None = None

    def __bool__(self) -> bool:
        return bool(self.rate or self.places or self.circuit)

    def gates(self, prefix: str, name: str, rate_key: str | None = None, places_key: str | None = None) -> list[Gate]:
        """For `task:<name>` or `queue:<name>`; with a key each of its values has the limit for itself."""
        found: list[Gate] = []
        if self.rate:
            interval_us = max(round(1e6 / self.rate), 1)
            limit = name if rate_key is None else name + BAR + rate_key
            found.append(["rate", prefix + keys.rate(limit), interval_us, EARLY_US, int(self.own)])
        if self.places:
            limit = name if places_key is None else name + BAR + places_key
            found.append(["places", prefix + keys.places(limit), self.places])
        if self.circuit is not None:
            pause_ms, longest_ms = (int(seconds * 1000) for seconds in (self.circuit.reset_s, self.circuit.longest_s))
            task = name.partition(":")[2]
            key = prefix + keys.circuit(task)
            found.append(["circuit", key, self.circuit.fail_max, pause_ms, max(pause_ms, longest_ms), task])
        return found


def rate_per_second(said: Any) -> float:
    """A rate as Celery says it: "100/s", "10/m", "1/h", a number a second; None and 0 = no limit. Raises ValueError."""
    if said is None or said == "":
        return 0.0
    if isinstance(said, bool):
        raise ValueError(said)
    if isinstance(said, int | float):
        rate = float(said)
    else:
        count, slash, unit = str(said).partition("/")
        if slash and unit.strip() not in _SECONDS:
            raise ValueError(said)
        rate = float(count) / _SECONDS[unit.strip() or "s"] if slash else float(count)
    if not 0 <= rate < float("inf"):
        raise ValueError(said)
    return rate


def is_rate(said: Any) -> bool:
    """Whether a rate can be read."""
    try:
        rate_per_second(said)
    except ValueError:
        return False
    return True


def lane_facts(prefix: str, queue: str, lane: str, gates: Sequence[Gate], priorities: Priorities, made: float) -> str:
    """What the scripts are told of a lane. `made`: since when it is so (Unix seconds)."""
    lists = {"from": prefix + keys.limited(queue, lane), "to": prefix + queue, "steps": priorities.lists("")}
    return json.dumps({"gates": gates, "made": round(made, 3), **lists})
