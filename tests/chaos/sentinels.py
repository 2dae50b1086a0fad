"""A master and its replica under three Sentinels, in place of the one server: what it confirmed outlives the master."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from support import redis_server, replicated
from support.replicated import MASTER, until


class Pair:
    """The two of them; the master is the first one."""

    #: Neither a slow disk nor a wrong clock of theirs.
    world = None

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._stack = ExitStack()
        self._watched = self._stack.enter_context(replicated.watched(folder))
        self._servers = self._watched.master, self._watched.replica

    def url(self, db: int = 0) -> str:
        """By the Sentinels."""
        return self._watched.full_url(db)

    def client(self, db: int = 0, socket_timeout: float = 5.0) -> redis.Redis:
        """Of the master; nothing is sent twice."""
        return self._servers[0].client(db, socket_timeout=socket_timeout, retry=Retry(NoBackoff(), 0))

    def is_up(self) -> bool:
        return bool(self.client().ping())

    def problems(self) -> list[str]:
        """A master that the Sentinels have chosen unasked may not have had everything."""
        named = [_names(port) for port in self._watched.sentinels]
        chosen = self._servers[0].port
        return (
            []
            if set(named) == {chosen}
            else [f"the Sentinels name {named} as master, not {chosen}: a choice of theirs"]
        )

    def fail_over(self, silent: bool) -> None:
        """The master is killed, or goes silent without closing anything, once its replica has all that it has
        confirmed; the Sentinels choose that one, and in the end the old master follows it.
        """
        old, new = self._servers
        with old.client() as master, new.client() as replica:
            # Redis replicates after it has answered: what is lost by that is not promised.
            master.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
            until(lambda: _offset(replica) == _offset(master), "the replica has everything", 60)
            old.process.send_signal(signal.SIGSTOP if silent else signal.SIGKILL)
            until(lambda: replica.role()[0] == b"master", "the Sentinels choose the other one", 60)
        self._servers = new, old
        for port in self._watched.sentinels:
            until(lambda port=port: _names(port) == new.port, "all of them name it", 60)
        if silent:
            old.process.send_signal(signal.SIGCONT)
        else:
            old.process.wait()
            old = self._stack.enter_context(redis_server.running(old.port))
        replicated.follow(old, new)
        with old.client() as replica:
            replica.execute_command("CLIENT", "UNPAUSE")  # it would hold back what its master tells it too
        self._servers = new, old

    def kill(self) -> None:
        """End all."""
        self._stack.close()


def _offset(client: redis.Redis) -> int:
    return int(client.info("replication")["master_repl_offset"])


def _names(port: int) -> int:
    """The port of the master by one of the Sentinels."""
    with redis.Redis(port=port) as client:
        return int(client.sentinel_get_master_addr_by_name(MASTER)[1])
