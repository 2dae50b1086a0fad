"""What a host says of itself, sealed by its key, so that nobody can invent hosts or steer orders by false tags."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from opsq._version import __version__
from opsq.exceptions import UsageError
from opsq.hosts.hostset import LONGEST_NAME, is_name
from opsq.hosts.order import dumps, loads
from opsq.protocol import signing
from opsq.protocol.signing import KeyFormatError, PublicKey, Sealed, Signer

VERSION = 1
_MACHINE_ID = Path("/etc/machine-id")


def host_name(wanted: str | None) -> str:
    """By which name this host goes. Raises UsageError."""
    if wanted is None:
        return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip(".-")[:LONGEST_NAME] or "localhost"
    if not is_name(wanted):
        raise UsageError(f"{wanted!r} is no name of a host", hint="letters, digits, dots, hyphens and underscores")
    return wanted


def machine_id(key: PublicKey, path: Path = _MACHINE_ID) -> str:
    """A name for this machine and this host key."""
    try:
        machine = path.read_bytes().strip()
    except OSError:
        machine = b""
    return hashlib.sha256(machine + key.blob).hexdigest()[:16]


def fixed_facts(name: str, key: PublicKey, tags: Sequence[str]) -> dict[str, Any]:
    """What does not change while the agent runs."""
    return {
        "v": VERSION,
        "name": name,
        "key": key.line(),
        "tags": sorted(set(tags)),
        "version": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "pid": os.getpid(),
        "user": str(os.geteuid()),
    }


def load() -> float | None:
    """The load average of the last minute."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def sealed_facts(signer: Signer, facts: Mapping[str, Any]) -> bytes:
    """The facts under the host's seal."""
    return signing.seal(signer, signing.FACTS, dumps(facts))


def opened(name: str, value: bytes | None, pinned: PublicKey | None) -> tuple[PublicKey, dict[str, Any]] | None:
    """The facts and the key that sealed them, if they are this host's own words.

    `pinned`: the key that is known for this host; without one the key that the facts name is believed (first use).
    """
    parts = Sealed.split(value) if value else None
    if parts is None:
        return None
    key = pinned or _named_key(parts.body)
    if key is None or not parts.is_by(key, signing.FACTS):
        return None
    facts = loads(parts.body)
    if facts is None or facts.get("name") != name or facts.get("v") != VERSION:
        return None
    return key, facts


def _named_key(body: bytes) -> PublicKey | None:
    try:
        return PublicKey.parse(json.loads(body)["key"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, KeyFormatError):
        return None
