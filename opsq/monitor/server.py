"""The process: a socket, a web server on it, and the collector beside it; signals end both in order."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from opsq.exceptions import OpsqError, RefusedError, UsageError
from opsq.monitor import access
from opsq.monitor.access import Access
from opsq.monitor.facts import Facts
from opsq.monitor.web import Web

logger = logging.getLogger("opsq.monitor")

DEFAULT_PORT = 5555
#: So many ports after the default one are tried.
_PORTS = 100
#: How long open answers may take once the process is to end (seconds).
_GOODBYE_S = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen: `port` None takes the default one, or the next that is free."""

    address: str = "127.0.0.1"
    port: int | None = None
    prefix: str = ""
    certfile: str | None = None
    keyfile: str | None = None

    def url(self, port: int) -> str:
        """What to open in a browser."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        scheme = "https" if self.certfile else "http"
        return f"{scheme}://{host}:{port}{self.prefix}/"


def check_access(place: Place, rules: Access) -> None:
    """Raises UsageError when others could come in without a password."""
    if not rules.accounts and not access.is_loopback(place.address):
        raise UsageError(
            f"a monitor on {place.address} needs a password",
            why="others reach that address, and its pages show arguments and results",
            hint=f"opsq monitor --address {place.address} --basic-auth USER:PASSWORD",
        )


def bind(place: Place) -> socket.socket:
    """The socket, listening. Raises UsageError when the port that was asked for is taken."""
    ports = [place.port] if place.port is not None else list(range(DEFAULT_PORT, DEFAULT_PORT + _PORTS))
    for port in ports:
        try:
            return _listener(place.address, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise _cannot_listen(place.address, port, error) from None
    if place.port is None:
        raise OpsqError("cannot listen", why=f"all ports from {ports[0]} to {ports[-1]} are taken", hint="--port N")
    raise UsageError(
        f"cannot listen on {place.address}:{place.port}",
        why="the port is taken",
        hint="name another one with --port, or leave it out to have the next free one",
    )


def _cannot_listen(address: str, port: int, error: OSError) -> OpsqError:
    why = (error.strerror or str(error)).lower()
    kind = RefusedError if error.errno in (errno.EACCES, errno.EPERM) else UsageError
    return kind(f"cannot listen on {address}:{port}", why=why, hint="name another one with --address and --port")


def _listener(address: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _name, where = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(256)
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(False)
    return listener


class _Server(uvicorn.Server):
    """uvicorn's server that says when it serves."""

    def __init__(self, config: uvicorn.Config, when_ready: Callable[[], None], on_reload: Callable[[], None]) -> None:
        super().__init__(config)
        self._when_ready, self._on_reload = when_ready, on_reload

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """INT and TERM end it, a second one at once. (uvicorn's own would raise them again and end the process.)"""
        before = {number: signal.signal(number, self._end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, _number: int, _frame: Any) -> None:
        self.force_exit, self.should_exit = self.should_exit, True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._on_reload)
        self._when_ready()


def serve(
    listener: socket.socket,
    place: Place,
    facts: Facts,
    rules: Callable[[], Access],
    *,
    when_ready: Callable[[], None] = lambda: None,
    on_reload: Callable[[], None] = lambda: None,
) -> None:
    """Serve until a signal ends it; the collector is started before and stopped after."""
    ending: list[Any] = []
    web = Web(facts, rules, place.prefix, lambda: bool(ending and ending[0].should_exit), secure=bool(place.certfile))
    config = uvicorn.Config(
        web.asgi(),
        log_config=None,
        access_log=logger.isEnabledFor(logging.DEBUG),
        lifespan="off",
        server_header=False,
        limit_concurrency=1_000,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=_GOODBYE_S,
        h11_max_incomplete_event_size=32_768,
        ssl_certfile=place.certfile,
        ssl_keyfile=place.keyfile,
        http="h11",
        ws="none",
        loop="asyncio",
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server = _Server(config, when_ready, on_reload)
    ending.append(server)
    facts.collector.start()
    try:
        server.run(sockets=[listener])
    finally:
        facts.collector.stop()


def prefix_of(text: str) -> str:
    """A path to stand before all links: "/opsq" for "opsq", "/opsq" and "/opsq/". Raises UsageError."""
    path = "/" + text.strip("/") if text.strip("/") else ""
    if any(char in path for char in "?#%\\\"'<> ") or ".." in path or not path.isprintable() or "//" in path:
        raise UsageError(f"cannot use {text!r} as URL prefix", why="a path is meant", hint="--url-prefix opsq")
    return path
