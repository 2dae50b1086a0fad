"""The hosts that a caller knows: those with a lease, those that said good-bye, those that have gone without a word.

The caller's own file remembers names, keys and when each was last seen, for each broker: somebody with access to Redis
can hide a host, but not make the caller forget it, and cannot put another key in its place.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from opsq.datastore import keys, presence
from opsq.datastore.connection import parse_url
from opsq.hosts.facts import opened
from opsq.hosts.hostset import is_name
from opsq.hosts.keyring import KeyRing, read_json, write_private
from opsq.protocol.signing import KeyFormatError, PublicKey

if TYPE_CHECKING:
    import redis

#: A host that has gone without a word is named in each run for so long, unless it is forgotten.
REMEMBERED_S = 30 * 86_400.0

#: "changed": what is there under this name is not sealed by the key that is known for it.
HostState = Literal["present", "stopped", "silent", "changed"]


@dataclass(frozen=True, slots=True)
class Known:
    """A host as the caller sees it: verified facts only, `seen` in Unix seconds."""

    name: str
    state: HostState
    key: PublicKey | None
    seen: float | None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tags(self) -> Collection[str]:
        """The tags that the host gives itself."""
        found = self.facts.get("tags")
        return [tag for tag in found if isinstance(tag, str)] if isinstance(found, list) else []


class KnownHosts:
    """The caller's file, for one broker."""

    def __init__(self, ring: KeyRing, url: str) -> None:
        where = parse_url(url)
        self._ring = ring
        self._place = f"{where.address}/{where.db}"
        self.entries = self._read(read_json(ring.known_hosts))

    def _read(self, content: Mapping[str, Any]) -> dict[str, tuple[PublicKey, float]]:
        found: dict[str, tuple[PublicKey, float]] = {}
        table = content.get(self._place)
        for name, entry in (table if isinstance(table, dict) else {}).items():
            try:
                found[name] = PublicKey.parse(entry["key"]), float(entry["seen"])
            except (KeyError, TypeError, ValueError, KeyFormatError):
                continue
        return found

    def learn(self, hosts: Iterable[Known]) -> None:
        """Remember keys of new hosts and when each was seen; a key that is known stays."""
        news = {host.name: (host.key, host.seen) for host in hosts if host.key is not None and host.state != "changed"}
        with self._ring.locked():
            content = read_json(self._ring.known_hosts)
            mine = self._read(content)
            for name, (key, seen) in news.items():
                pinned, before = mine.get(name, (key, 0.0))
                mine[name] = pinned, max(before, seen or 0.0)
            self._write(content, mine)

    def forget(self, name: str) -> bool:
        """Know a host no more; its next key is believed. False if it was not known."""
        with self._ring.locked():
            content = read_json(self._ring.known_hosts)
            mine = self._read(content)
            was_known = mine.pop(name, None) is not None
            self._write(content, mine)
        return was_known

    def _write(self, content: dict[str, Any], mine: Mapping[str, tuple[PublicKey, float]]) -> None:
        content[self._place] = {
            name: {"key": key.line(), "seen": int(seen)} for name, (key, seen) in sorted(mine.items())
        }
        text = json.dumps(content, indent=1) + "\n"
        old = self._ring.known_hosts.read_text() if self._ring.known_hosts.exists() else ""
        if text != old:
            write_private(self._ring.known_hosts, text)
        self.entries = dict(mine)


def survey(
    client: redis.Redis, known: KnownHosts, *, with_facts: bool = True, now: float | None = None
) -> dict[str, Known]:
    """All hosts by name: what Redis says, held against what the caller knows. Raises RedisError.

    `with_facts=False` spares a signature's check for each host that is present under the key that is known for it.
    """
    now = time.time() if now is None else now
    names = [name for name in presence.names(client) if is_name(name)]
    remembered = [name for name, (_key, seen) in known.entries.items() if now - seen < REMEMBERED_S]
    told = presence.read(client, list(dict.fromkeys([*names, *remembered])))
    gone = [host.name for host in told if host.lease is None and host.sealed is None]
    if stale := [name for name in gone if name in names]:
        client.srem(keys.HOSTS, *stale)
    hosts = (_known(host, known, with_facts) for host in told)
    return {host.name: host for host in hosts if host.key is not None or host.state in ("present", "changed")}


def _known(host: presence.HostFacts, known: KnownHosts, with_facts: bool) -> Known:
    pinned, last_seen = known.entries.get(host.name, (None, 0.0))
    if not with_facts and host.lease and pinned and host.sealed and host.sealed.startswith(pinned.id):
        return Known(host.name, "present", pinned, last_seen)
    found = opened(host.name, host.sealed, pinned)
    if found is None:
        is_another = host.lease is not None and host.sealed is not None
        return Known(host.name, "changed" if is_another else "silent", pinned, last_seen or None)
    key, facts = found
    at = facts.get("at")
    told_at = float(at) if isinstance(at, int | float) else 0.0
    seen = max(last_seen, told_at)
    if host.lease is not None:
        return Known(host.name, "present", key, seen, facts)
    said_good_bye = bool(facts.get("stopped")) and told_at >= last_seen  # no old good-bye that somebody put there again
    return Known(host.name, "stopped" if said_good_bye else "silent", key, seen, facts)
