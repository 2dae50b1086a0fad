"""Who may see, and who may act: passwords, protection against requests that other sites forge, security headers.

Without a password nothing acts, and only names of this machine are answered, so that no other site's page can read
along (DNS rebinding).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

COOKIE = "opsq_monitor"
TOKEN_FIELD = "token"

#: On every answer: nothing from elsewhere, nothing inline, no frame around it, nothing kept by caches.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches it."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


@dataclass(frozen=True, slots=True)
class Access:
    """What is allowed. `accounts`: "user:password" each."""

    accounts: tuple[str, ...] = field(default=(), repr=False)
    read_only: bool = False
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @property
    def may_act(self) -> bool:
        """Whether there are buttons at all."""
        return bool(self.accounts) and not self.read_only

    def user(self, authorization: str | None) -> str | None:
        """Who a header `Authorization` proves to be; None: nobody. All accounts are compared, in constant time."""
        given = _basic(authorization)
        found = None
        for account in self.accounts:
            if hmac.compare_digest(_digest(account), _digest(given)):
                found = account.partition(":")[0]
        return found

    def knows_host(self, host: str | None) -> bool:
        """Whether a request may name this host; with a password any."""
        if self.accounts:
            return True
        name = urlsplit(f"//{host or ''}").hostname or ""
        return is_loopback(name)

    # -- requests that act ---------------------------------------------------------------------------------------------

    def token(self, session: str) -> str:
        """What a form of this browser must bring along."""
        return hmac.new(self._secret, session.encode(), hashlib.sha256).hexdigest()

    def forged(self, headers: Mapping[str, str], token: str) -> str | None:
        """Why a request that acts is refused; None: it comes from a page of ours, in the same browser."""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site not in (None, "same-origin"):
            return "it comes from another site"
        if site is None and not _same_origin(origin, headers):
            return "it does not say that it comes from this page"
        session = session_of(headers.get("cookie"))
        if not session or not hmac.compare_digest(self.token(session).encode(), token.encode(errors="replace")):
            return "the page is too old; load it again"
        return None


def _same_origin(origin: str | None, headers: Mapping[str, str]) -> bool:
    if not origin:
        return False
    hosts = {headers.get("host"), headers.get("x-forwarded-host")} - {None}
    return urlsplit(origin).netloc in hosts


def session_of(cookie: str | None) -> str:
    """The number of a browser, from its cookies; empty if it has none."""
    try:
        found = SimpleCookie(cookie or "").get(COOKIE)
    except CookieError:
        return ""
    value = found.value if found else ""
    return value if len(value) == 32 and value.isalnum() else ""


def new_session() -> str:
    """A number for a browser."""
    return secrets.token_hex(16)


def set_cookie(session: str, path: str, secure: bool) -> str:
    """The header that gives a browser its number: never sent along by another site's pages, not for scripts."""
    return f"{COOKIE}={session}; Path={path or '/'}; HttpOnly; SameSite=Strict" + ("; Secure" if secure else "")


def _basic(authorization: str | None) -> str:
    scheme, _, value = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def accounts_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Accounts as "user:password", several also with commas between them (Flower's form). Raises ValueError."""
    found = [each.strip() for text in texts for each in text.split(",") if each.strip()]
    for account in found:
        user, colon, password = account.partition(":")
        if not (user and colon and password):
            raise ValueError("write user:password")
    return tuple(found)
