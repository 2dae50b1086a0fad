"""How the limits stand: what is limited, what runs within it, what waits for it. For whoever looks; changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opsq.broker.broker import Broker
from opsq.broker.lanes import depths, lanes
from opsq.broker.queues import server_ms
from opsq.datastore import keys
from opsq.datastore.connection import errors


@dataclass(slots=True)
class LimitState:
    """One limited task or queue (`kind`). `said`: its limits, as workers have them; `running`: how many hold a place,
    None where each key has places of its own; `circuit`: "closed", "open" or "half-open", None without one; `open_s`:
    how long it stays open; `failures`: in a row; `waiting`: messages; `lanes`: how many keys and queues they are of.
    """

    kind: str
    name: str
    said: Mapping[str, Any]
    running: int | None = None
    circuit: str | None = None
    open_s: float | None = None
    failures: int = 0
    waiting: int = 0
    lanes: int = 0

    def to_data(self) -> dict[str, Any]:
        """As scripts get it; durations in seconds, the rate in starts per second."""
        said = ("rate", "scope", "rate_key", "max_concurrency", "concurrency_key", "circuit_breaker")
        return {
            "name": self.name,
            "kind": self.kind,
            **{name: self.said.get(name) for name in said},
            "running": self.running,
            "circuit": self.circuit,
            "open_for": self.open_s,
            "failures": self.failures,
            "waiting": self.waiting,
            "lanes": self.lanes,
        }


def states(broker: Broker, queues: Sequence[str]) -> list[LimitState]:
    """All limits that workers have told of, and those for which something waits, by name."""
    with errors(broker.url):
        told: Any = broker.client.hgetall(broker.key(keys.LIMITS))
        found: dict[tuple[str, str], LimitState] = {}
        for field_, text in told.items():
            kind, _, name = field_.decode(errors="replace").partition(":")
            found[kind, name] = LimitState(kind, name, json.loads(text))
        waiting = lanes(broker.client, broker.key_prefix, queues)
        for lane, depth in zip(waiting, depths(broker.client, waiting), strict=True):
            state = found.setdefault(lane.owner, LimitState(*lane.owner, {}))
            state.waiting += depth
            state.lanes += 1
        _look_at_places(broker, list(found.values()))
        _look_at_circuits(broker, list(found.values()))
    return sorted(found.values(), key=lambda state: (state.kind, state.name))


def _look_at_places(broker: Broker, found: Sequence[LimitState]) -> None:
    asked = [state for state in found if state.said.get("max_concurrency") and not state.said.get("concurrency_key")]
    pipe = broker.client.pipeline(transaction=False)
    for state in asked:
        pipe.zcard(broker.key(keys.places(f"{state.kind}:{state.name}")))
    for state, count in zip(asked, pipe.execute() if asked else (), strict=True):
        state.running = count


def _look_at_circuits(broker: Broker, found: Sequence[LimitState]) -> None:
    asked = [state for state in found if state.said.get("circuit_breaker")]
    pipe = broker.client.pipeline(transaction=False)
    for state in asked:
        pipe.hmget(broker.key(keys.circuit(state.name)), "until", "failures", "probe")
    now_ms = server_ms(broker)
    for state, (until_ms, failures, probe) in zip(asked, pipe.execute() if asked else (), strict=True):
        state.failures = int(failures or 0)
        state.circuit = "closed" if until_ms is None else "half-open" if probe else "open"
        if until_ms is not None:
            state.open_s = max(int(until_ms) - now_ms, 0) / 1000
