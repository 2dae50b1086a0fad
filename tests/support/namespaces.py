"""Hosts with a network and a name of their own, and a Redis in the middle, all in namespaces of this machine.

Nothing is made in the network of the machine itself. Without root it all lives in a user namespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import redis

from . import redis_server

HUB = "10.77.0.254"
URL = f"redis://{HUB}:6379/0"
TOOLS = ("ip", "unshare", "nsenter", "hostname")


class NotPossible(Exception):
    """This machine does not let us make namespaces; the reason is for the skipped test."""


@dataclass
class Network:
    """A hub with Redis, and hosts around it. `inside`: how a command gets to where all of it is."""

    folder: Path
    inside: Sequence[str]
    names: Sequence[str]
    prefix: str = field(default_factory=lambda: f"opsq{uuid4().hex[:6]}")

    def on(self, name: str) -> list[str]:
        """What stands before a command that is to run on a host (or on "hub"), under its own host name."""
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name]
        return [*self.inside, "ip", "netns", "exec", f"{self.prefix}-{name}", *named]

    def cut(self, name: str) -> None:
        """Pull a host's cable: packets vanish."""
        self._ip("-n", f"{self.prefix}-hub", "link", "set", f"to-{name}", "down")

    def join(self, name: str) -> None:
        """Put it in again."""
        self._ip("-n", f"{self.prefix}-hub", "link", "set", f"to-{name}", "up")

    def client(self) -> redis.Redis:
        """The hub's Redis, by its Unix socket, which does not care for networks."""
        return redis.Redis(unix_socket_path=str(self.folder / "redis.sock"))

    def make(self) -> None:
        hub = f"{self.prefix}-hub"
        self._ip("netns", "add", hub)
        self._ip("-n", hub, "link", "set", "lo", "up")
        self._ip("-n", hub, "link", "add", "br0", "type", "bridge")
        self._ip("-n", hub, "addr", "add", f"{HUB}/24", "dev", "br0")
        self._ip("-n", hub, "link", "set", "br0", "up")
        for number, name in enumerate(self.names, 1):
            mine = f"{self.prefix}-{name}"
            self._ip("netns", "add", mine)
            self._ip("-n", mine, "link", "set", "lo", "up")
            self._ip("-n", hub, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", mine)
            self._ip("-n", hub, "link", "set", f"to-{name}", "master", "br0", "up")
            self._ip("-n", mine, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            self._ip("-n", mine, "link", "set", "eth0", "up")

    def remove(self) -> None:
        for name in ("hub", *self.names):
            with suppress(NotPossible):
                self._ip("netns", "del", f"{self.prefix}-{name}")

    def _ip(self, *words: str) -> None:
        done = subprocess.run([*self.inside, "ip", *words], capture_output=True, text=True, timeout=30)
        if done.returncode:
            raise NotPossible(f"ip {' '.join(words)}: {done.stderr.strip()}")


@contextmanager
def network(folder: Path, names: Sequence[str]) -> Iterator[Network]:
    """All of it, with a Redis on the hub; taken down at the end. Raises NotPossible."""
    with bare_network(folder, names) as made, _redis(made):
        yield made


@contextmanager
def bare_network(folder: Path, names: Sequence[str]) -> Iterator[Network]:
    """The hub and the hosts alone. Raises NotPossible."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise NotPossible(f"not installed: {', '.join(missing)}")
    with _privileged() as inside:
        made = Network(folder, inside, names)
        try:
            made.make()
            yield made
        finally:
            made.remove()


@contextmanager
def _privileged() -> Iterator[list[str]]:
    """As root nothing is needed; others get a user namespace, kept open by a process that only waits."""
    if os.geteuid() == 0:
        yield []
        return
    script = "mount -t tmpfs tmpfs /run && echo ready && exec sleep 1000"
    line = ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", script]
    holder = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            raise NotPossible(f"unshare: {holder.communicate(timeout=10)[1].strip()}")
        yield ["nsenter", "--target", str(holder.pid), "--user", "--net", "--mount", "--preserve-credentials"]
    finally:
        holder.kill()
        holder.communicate()


@contextmanager
def _redis(made: Network) -> Iterator[None]:
    options = ["--bind", HUB, "127.0.0.1", "--port", "6379", "--protected-mode", "no", "--save", "", "--appendonly"]
    options += ["no", "--unixsocket", str(made.folder / "redis.sock"), "--dir", str(made.folder)]
    server = subprocess.Popen(
        [*made.on("hub"), redis_server.binary(), *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 10
        while True:
            with suppress(redis.RedisError), made.client() as client:
                client.ping()
                break
            if server.poll() is not None or time.monotonic() > until:
                raise NotPossible("Redis does not start in its namespace")
            time.sleep(0.01)
        yield
    finally:
        server.kill()
        server.wait()
