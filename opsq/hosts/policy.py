"""Whose orders a host carries out: "trusted operators", by OpenSSH's `allowed_signers` and a list of revoked keys.

The files are looked at for each order; what has changed is read again, so that trust given or taken away holds at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from opsq.hosts.keyring import KeyRing, write_private
from opsq.protocol.signing import ORDER, KeyFormatError, PublicKey

OWN = "the operator of this machine"
_OPTION = re.compile(r'(?P<name>[a-z-]+)(?:="(?P<quoted>[^"]*)"|=(?P<plain>[^",\s]*))?(?:,|\s+)')
_TIME = re.compile(r"(\d{8})(\d{4}(?:\d{2})?)?(Z?)")


@dataclass(frozen=True, slots=True)
class Trusted:
    """One line of trust: whose key, and when it holds (Unix seconds)."""

    name: str
    key: PublicKey
    after: float | None = None
    before: float | None = None


class Policy:
    """Who may give orders here."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._stamps: tuple[tuple[int, int, int] | None, ...] | None = None
        self._trusted: Mapping[bytes, Trusted] = {}
        self._revoked: frozenset[bytes] = frozenset()

    def key_of(self, key_id: bytes) -> PublicKey | None:
        """The trusted key with this id; None if it is not trusted, or revoked."""
        self._refresh()
        found = self._trusted.get(key_id)
        return None if found is None or key_id in self._revoked else found.key

    def is_revoked(self, key_id: bytes) -> bool:
        """Whether trust in this key was taken back."""
        self._refresh()
        return key_id in self._revoked

    def objection(self, key_id: bytes, now: float) -> str:
        """Why the owner of a trusted key may not give orders now; empty if he may."""
        found = self._trusted[key_id]
        if found.after is not None and now < found.after:
            return f"the key of {found.name} is not valid yet"
        if found.before is not None and now > found.before:
            return f"the key of {found.name} is not valid any more"
        return ""

    def name_of(self, key_id: bytes) -> str:
        """By which name a trusted key goes here."""
        return self._trusted[key_id].name

    def _refresh(self) -> None:
        files = (self._ring.operator_public, self._ring.allowed_signers, self._ring.revoked_keys)
        stamps = tuple(map(_stamp, files))
        if stamps != self._stamps:
            self._trusted = {each.key.id: each for each in trusted(self._ring)}
            self._revoked = frozenset(key.id for key, _comment in revoked(self._ring))
            self._stamps = stamps


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def trusted(ring: KeyRing) -> Iterator[Trusted]:
    """All whom this key directory trusts with orders, its own operator first."""
    for line in _lines(ring.operator_public):
        try:
            yield Trusted(OWN, PublicKey.parse(line))
        except KeyFormatError:
            continue
    for line in _lines(ring.allowed_signers):
        found = parse_signer(line)
        if found is not None:
            yield found


def revoked(ring: KeyRing) -> Iterator[tuple[PublicKey, str]]:
    """The keys whose trust was taken back, with their comments."""
    for line in _lines(ring.revoked_keys):
        try:
            yield PublicKey.parse(line), " ".join(line.split()[2:])
        except KeyFormatError:
            continue


def parse_signer(line: str) -> Trusted | None:
    """A line `principals [options] type key [comment]`; None if it says nothing about orders that we can use."""
    words = line.split(None, 1)
    if len(words) < 2:
        return None
    name, rest = words
    read = _options(rest)
    if read is None:
        return None
    options, key = read
    namespaces = options.get("namespaces", ORDER).split(",")
    if ORDER not in namespaces or "cert-authority" in options:
        return None
    try:
        after = _unix(options["valid-after"]) if "valid-after" in options else None
        before = _unix(options["valid-before"]) if "valid-before" in options else None
        return Trusted(name.strip('"'), PublicKey.parse(key), after, before)
    except (KeyFormatError, ValueError):
        return None


def _options(text: str) -> tuple[dict[str, str], str] | None:
    """The options in front of a key and the key's own words; None if they cannot be read without doubt."""
    found: dict[str, str] = {}
    while not text.startswith("ssh-"):
        match = _OPTION.match(text)
        if match is None:
            return None
        found[match["name"]] = match["quoted"] or match["plain"] or ""
        text = text[match.end() :]
    return found, text


def _unix(text: str) -> float:
    """OpenSSH's YYYYMMDD[HHMM[SS]][Z]. Raises ValueError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(text)
    clock = (match[2] or "").ljust(6, "0")
    moment = datetime.strptime(match[1] + clock, "%Y%m%d%H%M%S")
    return (moment.replace(tzinfo=UTC) if match[3] else moment.astimezone()).timestamp()


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


# -- changing it -------------------------------------------------------------------------------------------------------


def trust(ring: KeyRing, name: str, key: PublicKey) -> None:
    """Trust a key with orders from now on, also one that was revoked."""
    with ring.locked():
        _without(ring.revoked_keys, key)
        _without(ring.allowed_signers, key)
        _append(ring.allowed_signers, f'{name} namespaces="{ORDER}" {key.line(name)}')


def revoke(ring: KeyRing, key: PublicKey, comment: str) -> None:
    """Trust a key no more, whoever names it."""
    with ring.locked():
        _without(ring.allowed_signers, key)
        _without(ring.revoked_keys, key)
        _append(ring.revoked_keys, key.line(comment))


def _append(path: Path, line: str) -> None:
    _write(path, [*_all_lines(path), line])


def _without(path: Path, key: PublicKey) -> None:
    blob = key.line().split()[1]
    lines = _all_lines(path)
    kept = [line for line in lines if blob not in line.split()]
    if kept != lines:
        _write(path, kept)


def _all_lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []


def _write(path: Path, lines: list[str]) -> None:
    write_private(path, "".join(f"{line}\n" for line in lines))
