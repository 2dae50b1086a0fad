"""The hosts of a broker as Redis tells them: who has a lease, and what each says of itself.

For display: nothing is verified here. Whoever acts on it checks the seals (`opsq/hosts/inventory.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from opsq.datastore import keys
from opsq.protocol.signing import Sealed

if TYPE_CHECKING:
    import redis

#: present: its agent has a lease; stopped: it said good-bye; silent: it has gone without a word.
State = Literal["present", "stopped", "silent"]


@dataclass(frozen=True, slots=True)
class HostFacts:
    """A host: its agent's start (`since`) and last word (`seen_unix`) in Unix seconds, its facts as it wrote them."""

    name: str
    state: State
    since: float | None
    seen_unix: float | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    #: The lease's value, and the facts with their seal.
    lease: str | None = None
    sealed: bytes | None = None


def names(client: redis.Redis) -> list[str]:
    """The names of all hosts ever seen here, sorted."""
    found: Any = client.smembers(keys.HOSTS)
    return sorted(name.decode(errors="replace") for name in found)


def hosts(client: redis.Redis) -> list[HostFacts]:
    """All hosts that are known here, by name; names without lease and facts are left out. Raises RedisError."""
    return [host for host in read(client, names(client)) if host.lease is not None or host.sealed is not None]


def read(client: redis.Redis, wanted: Sequence[str]) -> list[HostFacts]:
    """Hosts by name, whether they are there or not."""
    pipe = client.pipeline(transaction=False)
    for name in wanted:
        pipe.get(keys.host_lease(name))
        pipe.get(keys.host_facts(name))
    values: Sequence[bytes | None] = pipe.execute() if wanted else []
    return [_host(name, lease, sealed) for name, lease, sealed in zip(wanted, values[::2], values[1::2], strict=True)]


def peek(sealed: bytes | None) -> dict[str, Any]:
    """The facts in a sealed value, unchecked; empty if it holds none."""
    parts = Sealed.split(sealed) if sealed else None
    if parts is None:
        return {}
    try:
        found = json.loads(parts.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _host(name: str, lease: bytes | None, sealed: bytes | None) -> HostFacts:
    facts = peek(sealed)
    state: State = "present" if lease is not None else "stopped" if facts.get("stopped") else "silent"
    held = None if lease is None else lease.decode(errors="replace")
    return HostFacts(name, state, _number(facts.get("since")), _number(facts.get("at")), facts, held, sealed)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
