"""Send a job's orders, follow the answers, and know when to wait no longer. Cancel what was begun."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from opsq.datastore import keys
from opsq.datastore.line import Line
from opsq.datastore.trouble import RedisConnectionError, RedisTimeoutError, ResponseError
from opsq.hosts import journal
from opsq.hosts.hostset import HostSet
from opsq.hosts.job import Job
from opsq.hosts.order import LIFE_S, Order, new_nonce
from opsq.protocol import signing
from opsq.protocol.signing import PublicKey, Signer

#: The leases of hosts that are waited for are looked at so often (seconds).
_LOOK_S = 5.0
#: So many looks in a row without a lease, while a command runs there, and the host counts as gone.
_LOOKS_GONE = 3
#: How long after its last moment the answer of a running command may come (seconds).
_ANSWER_S = 5.0
_READ_AT_ONCE = 1_000
#: A Redis that is away is waited for so long; how often it is tried (seconds).
_AWAY_S = 15.0
_AGAIN_S = 0.2
_CANCEL_S = 60.0


class Dispatch:
    """One job on its way. `keys_of`: the hosts' public keys, by which their answers are checked."""

    def __init__(self, url: str, signer: Signer, keys_of: Mapping[str, PublicKey]) -> None:
        self._url, self._signer, self._keys_of = url, signer, keys_of
        self._line = Line(url, protocol=2)
        self._sealed: dict[str, bytes] = {}
        self._last_id: bytes = b"0-0"
        self._without_lease: dict[str, int] = {}
        #: Answers that were not sealed by the host that they name.
        self.forged = 0
        #: When the first order was out, and when the last answer had come (monotonic).
        self.sent_at = 0.0

    def prepare(self, order: Order, hosts: HostSet, others: Iterable[Any]) -> Job:
        """The job of an order for these hosts; nothing is sent yet. `others`: what is known of further hosts."""
        parts = _parts(order, hosts)
        self._sealed = self._seal(parts)
        return Job.of(parts, others)

    def send(self, job: Job) -> None:
        """Keep the job in Redis, then put its orders into the hosts' lists, all in one write."""
        record = journal.record(job.id, list(dict.fromkeys(self._sealed.values())), time.time())
        self._put(record, self._sealed)
        self.sent_at = time.monotonic()

    def _seal(self, parts: Sequence[tuple[Order, HostSet]]) -> dict[str, bytes]:
        """For each host its part, sealed; one signature a part."""
        sealed = [(signing.seal(self._signer, signing.ORDER, part.to_bytes()), hosts) for part, hosts in parts]
        return {host: value for value, hosts in sealed for host in hosts}

    def _put(self, record: Sequence[tuple[Any, ...]], orders: Mapping[str, bytes]) -> None:
        """`orders`: for each host its own, sealed."""
        commands = list(record)
        for host, value in orders.items():
            key = keys.host_orders(host)
            commands += [("RPUSH", key, value), ("EXPIRE", key, keys.HOST_ORDERS_S)]
        self._line.send(*commands)
        for _command in commands:
            self._line.receive()

    def follow(self, job: Job, on_change: Callable[[Job], None]) -> None:
        """Take in answers until all is known; hosts that say nothing are named when their time is over."""
        order = job.parts[0]
        begin = time.monotonic()
        start_by = begin + order.exp - order.iat
        end_by = start_by + order.timeout_s + order.kill_after_s + _ANSWER_S
        look_at = begin + _LOOK_S
        away_since: float | None = None
        while not job.is_over:
            try:
                look_at = self._follow_on(job, start_by, end_by, look_at, on_change)
                away_since = None
            except (ConnectionError, RedisConnectionError, RedisTimeoutError):
                self._line.close()
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > _AWAY_S:
                    raise
                time.sleep(_AGAIN_S)

    def _follow_on(
        self, job: Job, start_by: float, end_by: float, look_at: float, on_change: Callable[[Job], None]
    ) -> float:
        """Give up whose time is over, and wait once for answers. Returns when the leases are to be looked at."""
        now = time.monotonic()
        waiting = job.names("waiting")
        if waiting and now >= start_by:
            self._take_back(waiting)
            job.settle(waiting, "silent", "")
        if now >= end_by:
            job.settle(job.names("running"), "silent", "it began, and its end was never told")
        if now >= look_at:
            self._look_at_leases(job)
            look_at = now + _LOOK_S
        if self._read(job, min(look_at, start_by if waiting else end_by) - time.monotonic()):
            on_change(job)
        return look_at

    def cancel(self, job: Job, patience_s: float, on_change: Callable[[Job], None]) -> None:
        """Have everything ended that was begun, by a signed order; wait a moment for the hosts to say so."""
        first = job.parts[0]
        now = time.time()
        hosts = HostSet(job.names("waiting", "running"))
        order = Order("cancel", job.id, 0, "", first.by, now, now + _CANCEL_S, new_nonce())
        self._line.close()  # an answer may have been under way
        self._take_back(job.names("waiting"))
        self._put([], self._seal(_parts(order, hosts)))
        until = time.monotonic() + patience_s
        while not job.is_over and (left := until - time.monotonic()) > 0:
            if self._read(job, left):
                on_change(job)

    def close(self) -> None:
        """Let go of the connection."""
        self._line.close()

    def _read(self, job: Job, seconds: float) -> bool:
        """Wait for answers, for so long at most; True when something new was said."""
        milliseconds = max(1, int(min(seconds, _LOOK_S) * 1000))
        stream = keys.job_answers(job.id)
        found = self._line.ask("XREAD", "COUNT", _READ_AT_ONCE, "BLOCK", milliseconds, "STREAMS", stream, self._last_id)
        changed = False
        for entry_id, fields in found[0][1] if found else ():
            self._last_id = entry_id
            value = next((value for name, value in zip(fields[::2], fields[1::2], strict=True) if name == b"a"), b"")
            answer = journal.open_answer(value, self._keys_of.get)
            if answer is None:
                self.forged += 1
            else:
                changed |= job.take(answer)
        return changed

    def _look_at_leases(self, job: Job) -> None:
        """Hosts that have gone meanwhile are not waited for to the very end."""
        names = job.names("waiting", "running")
        if not names:
            return
        self._line.send(*(("EXISTS", keys.host_lease(name)) for name in names))
        alive = {name for name in names if self._line.receive()}
        gone = [name for name in names if name not in alive]
        self._without_lease = {name: self._without_lease.get(name, 0) + 1 for name in gone}
        waiting = [name for name in gone if job.results[name].state == "waiting"]
        taken_back = self._take_back(waiting)
        job.settle(taken_back, "silent", "its agent has gone")
        for name in gone:
            if job.results[name].state == "running" and self._without_lease[name] >= _LOOKS_GONE:
                job.settle([name], "silent", "its agent has gone while the command ran")

    def _take_back(self, names: Sequence[str]) -> list[str]:
        """Take the orders out of the lists of these hosts; those where it still lay there will never run it."""
        if not names:
            return []
        self._line.send(*(("LREM", keys.host_orders(name), 0, self._sealed[name]) for name in names))
        return [name for name in names if self._removed()]

    def _removed(self) -> bool:
        try:
            return bool(self._line.receive())
        except ResponseError:  # an operator who may only write to the lists; the order's life ends by itself
            return False


def _parts(order: Order, hosts: HostSet) -> list[tuple[Order, HostSet]]:
    """The order in its parts, each with its hosts."""
    return [(part, HostSet.parse(part.targets)) for part in order.in_parts(hosts)]


def life_s(timeout_s: float) -> float:
    """How long an order is valid: never longer than its caller waits for a sign."""
    return min(LIFE_S, timeout_s)
