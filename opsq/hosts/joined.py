"""How a machine joins: a token that names an operator's key and a broker, and the brokers that a machine has joined.

A token holds no private key, and no password either unless it is written to a private file: passwords never stand on a
command line.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import json
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from opsq.datastore.url import each_url
from opsq.exceptions import RefusedError, UsageError
from opsq.hosts import policy
from opsq.hosts.keyring import KeyRing, read_json, write_private
from opsq.hosts.order import dumps, loads
from opsq.protocol.signing import PublicKey

_PREFIX = "opsq1-"
_CHECK = 6
_HINT = "start a Redis that they can reach (deploy/redis.conf), set broker_url to its name or address, then opsq up"


@dataclass(frozen=True, slots=True)
class Token:
    """An operator's name and public key, and the broker; `needs_password`: the URL's password was left out."""

    name: str
    operator: PublicKey
    broker: str
    needs_password: bool

    def text(self) -> str:
        """One word without blanks, with a check sum against typing errors."""
        told = {"n": self.name, "k": self.operator.raw.hex(), "b": self.broker, "p": self.needs_password}
        body = dumps(told)
        return _PREFIX + base64.urlsafe_b64encode(hashlib.sha256(body).digest()[:_CHECK] + body).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read a token. Raises UsageError."""
        text = "".join(text.split())
        wrong = UsageError("cannot read the token", why="it is damaged or cut", hint="copy the whole line again")
        if not text.startswith(_PREFIX):
            raise wrong
        encoded = text.removeprefix(_PREFIX)
        try:
            data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        except binascii.Error:
            raise wrong from None
        check, body = data[:_CHECK], data[_CHECK:]
        told = loads(body)
        if told is None or check != hashlib.sha256(body).digest()[:_CHECK]:
            raise wrong
        try:
            return cls(str(told["n"]), _key(told["k"]), str(told["b"]), bool(told["p"]))
        except (KeyError, ValueError, TypeError):
            raise wrong from None

    def url(self, password: str | None) -> str:
        """The broker's URL with a password put in."""
        return with_password(self.broker, password) if password else self.broker


def _key(text: str) -> PublicKey:
    raw = bytes.fromhex(text)
    if len(raw) != 32:
        raise ValueError(text)
    return PublicKey(raw)


def invite(operator: PublicKey, name: str, url: str, *, with_secret: bool) -> Token:
    """A token for a broker that other machines can reach. Raises RefusedError for one that they cannot."""
    check_reachable(url)
    bare, password = without_password(url)
    others = {_without_password(each)[1] for each in each_url(url)} - {"", password}
    if not with_secret and ("password=" in bare or others):
        why = "the broker's URL holds several passwords, and who joins can be asked for one only"
        raise RefusedError("cannot invite", why=why, hint="write the token with the URL to a private file instead")
    return Token(name, operator, url if with_secret else bare, bool(password) and not with_secret)


def check_reachable(url: str) -> None:
    """Raises RefusedError when only this machine can reach the broker."""
    for each in each_url(url):
        _check_reachable(each)


def _check_reachable(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme in ("redis+socket", "unix"):
        why = "the broker here is this machine's private Redis, which other machines cannot reach"
        raise RefusedError("cannot invite", why=why, hint=_HINT)
    if _is_loopback(parts.hostname or "localhost"):
        why = f"the broker's address {parts.hostname or 'localhost'} is this machine's own, which others cannot reach"
        raise RefusedError("cannot invite", why=why, hint="name its outside address: opsq hosts invite --broker URL")


def _is_loopback(host: str) -> bool:
    if host.rstrip(".").lower() in ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def without_password(url: str) -> tuple[str, str]:
    """The URL, or URLs, without password (the user stays), and the first password."""
    bare, passwords = zip(*map(_without_password, each_url(url)), strict=True)
    return ";".join(bare), next(filter(None, passwords), "")


def _without_password(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    if not parts.password:
        return url, ""
    head, _, place = parts.netloc.rpartition("@")
    user = head.partition(":")[0]
    return parts._replace(netloc=f"{user}@{place}" if user else place).geturl(), unquote(parts.password)


def with_password(url: str, password: str) -> str:
    """The URL with a password; of several each."""
    return ";".join(_with_password(each, password) for each in each_url(url))


def _with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user if at else ''}:{quote(password, safe='')}@{place}").geturl()


def join(ring: KeyRing, token: Token, url: str) -> None:
    """Trust the token's operator, and serve its broker from now on."""
    ring.ensure()
    policy.trust(ring, token.name, token.operator)
    with ring.locked():
        found = brokers(ring)
        kept = [known for known in found if without_password(known)[0] != without_password(url)[0]]
        write_private(ring.brokers, json.dumps({"brokers": [*kept, url]}, indent=1) + "\n")


def brokers(ring: KeyRing) -> list[str]:
    """The URLs of the brokers that this machine has joined. Raises OpsqError when the file is broken."""
    found = read_json(ring.brokers).get("brokers", [])
    return [url for url in found if isinstance(url, str)] if isinstance(found, list) else []
