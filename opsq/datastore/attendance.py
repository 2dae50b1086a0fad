"""Which hosts are there now: a look at their leases, for those who want no more than that and want it fast."""

from __future__ import annotations

from opsq.datastore import keys
from opsq.datastore.line import questions


def hosts(url: str) -> dict[str, str]:
    """Each host that is known, by name: "present" when its agent holds a lease, else "away". Raises BrokerError."""
    with questions(url) as ask:
        (members,) = ask([("SMEMBERS", keys.HOSTS)])
        names = sorted(member.decode(errors="replace") for member in members)
        leases = ask([("EXISTS", keys.host_lease(name)) for name in names])
    return {name: "present" if there else "away" for name, there in zip(names, leases, strict=True)}
