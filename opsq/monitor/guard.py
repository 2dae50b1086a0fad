"""What stands before every page: the path's prefix, the host's name, the password, and headers on every answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opsq.monitor import access
from opsq.monitor.access import Access

logger = logging.getLogger("opsq.monitor")

#: Answered without a password: whether it works, and nothing else.
OPEN_PATHS = ("/healthz", "/healthcheck")
#: Most characters of an address.
_ADDRESS_LIMIT = 8_192
#: What a wrong password costs (seconds), and how many may wait for that at once.
_WRONG_S, _WRONG_AT_ONCE = 0.5, 100


class Guard:
    """Lets requests through to `app`. `access` is asked each time: a reload may have changed it."""

    def __init__(self, app: ASGIApp, access: Callable[[], Access], prefix: str) -> None:
        self._app, self._access, self._prefix = app, access, prefix
        self._wrong = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._strip_prefix(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in access.HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = await self._refused(scope)
        await (refused or self._app)(scope, receive, send_with_headers)

    def _strip_prefix(self, scope: Scope) -> None:
        """A reverse proxy may hand the prefix on, or take it off."""
        path = scope["path"]
        if self._prefix and (path == self._prefix or path.startswith(f"{self._prefix}/")):
            scope["path"] = path[len(self._prefix) :] or "/"

    async def _refused(self, scope: Scope) -> Response | None:
        """The answer for who may not come in; None: go on."""
        rules, headers = self._access(), Headers(scope=scope)
        if len(scope["raw_path"]) + len(scope["query_string"]) > _ADDRESS_LIMIT:
            return PlainTextResponse("The address is too long.\n", 414)
        if not rules.knows_host(headers.get("host")):
            return PlainTextResponse("Without a password this monitor answers to localhost only.\n", 421)
        if not rules.accounts or scope["path"] in OPEN_PATHS:
            return None
        given = headers.get("authorization")
        scope["user"] = rules.user(given)
        if scope["user"] is not None:
            return None
        if given:
            logger.warning("a wrong password came from %s", (scope.get("client") or ("?",))[0])
            await self._make_wait()
        return PlainTextResponse(
            "A user and a password are needed.\n", 401, {"WWW-Authenticate": 'Basic realm="opsq", charset="UTF-8"'}
        )

    async def _make_wait(self) -> None:
        """Guessing is slow, and does not fill the memory."""
        if self._wrong < _WRONG_AT_ONCE:
            self._wrong += 1
            try:
                await asyncio.sleep(_WRONG_S)
            finally:
                self._wrong -= 1


def see_other(location: str) -> Response:
    """After a form: the page to look at, by GET."""
    return RedirectResponse(location, 303)
