"""Small proxies between a worker and Redis that break connections at the worst moments.

`CutAfterForward` forwards a turn and cuts the connection before its answer comes back: the answer is lost.
`HoldUntilCompared` cuts first and forwards the turn only when the client has reconnected and compared: a late turn.
`ChildKiller` kills the child that has asked; what is due, and whether it still reaches the server, its kinds say.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import psutil

from opsq.broker.consumer import TURN
from support.processes import Running
from support.worker_project import children_of

TURN_SHA = TURN.sha.encode()


class Proxy:
    """Forwards both ways; strikes `limit` times, at every `every`-th turn that passes."""

    def __init__(self, server_port: int, limit: int, every: int = 3) -> None:
        self.server_port, self.limit, self.every = server_port, limit, every
        self.strikes, self._turns = 0, 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End the listener and all connections."""
        for each in [self._listener, *self._sockets]:
            _close(each)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                server = self.connect(client)
                if server is None:
                    continue
                for each in (client, server):
                    if each.family != socket.AF_UNIX:
                        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += [client, server]
                threading.Thread(target=self._up, args=(client, server), daemon=True).start()
                threading.Thread(target=self._down, args=(client, server), daemon=True).start()

    def connect(self, _client: socket.socket) -> socket.socket | None:
        """A connection to the server for a client; None: it is turned away."""
        return socket.create_connection(("127.0.0.1", self.server_port))

    def _due(self, data: bytes) -> bool:
        """Whether this request is to be struck: a turn, by its place among all turns."""
        if TURN_SHA not in data:
            return False
        with self._lock:
            self._turns += 1
            if self.strikes >= self.limit or self._turns % self.every:
                return False
            self.strikes += 1
            return True

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 20):
                self.seen(data)
                if self._due(data):
                    self.strike(client, server, data)
                    return
                server.sendall(data)
        _close(server)

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                client.sendall(data)
        _close(client)

    def seen(self, data: bytes) -> None:
        """Each request as it comes."""

    def strike(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        """Break this connection."""
        raise NotImplementedError


class CutAfterForward(Proxy):
    """The server carries the turn out; its answer is lost."""

    def strike(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        """Cut the client off, then forward what it had asked for."""
        _close(client)
        server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)


class HoldUntilCompared(Proxy):
    """The turn reaches the server only when its client has reconnected and compared what it holds."""

    def __init__(self, server_port: int, limit: int, every: int = 3) -> None:
        super().__init__(server_port, limit, every)
        self._held: list[tuple[socket.socket, bytes]] = []

    def strike(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        """Cut the client off; what it asked for waits."""
        with self._lock:
            self._held.append((server, data))
        _close(client)

    def seen(self, data: bytes) -> None:
        """A turn on another connection after a comparison (HKEYS): now the late ones go on."""
        if TURN_SHA not in data:
            return
        with self._lock:
            held, self._held = self._held, []
        for server, late in held:
            with suppress(OSError):
                server.sendall(late)


class ChildKiller(Proxy):
    """Kills the child of `worker` that has asked."""

    worker: Running | None = None
    #: Whether what it had asked for reaches the server all the same.
    comes = False

    def strike(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        """Kill the child that has asked; whoever settles for it is let through."""
        assert self.worker is not None
        comes, port = self.comes, client.getpeername()[1]
        for child in children_of(self.worker):
            with suppress(psutil.Error):
                if any(each.laddr and each.laddr.port == port for each in child.net_connections("tcp")):
                    if comes:
                        server.sendall(data)
                    child.kill()
                    return
        with self._lock:
            self.strikes -= 1
        server.sendall(data)
        self._up(client, server)


def _close(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
