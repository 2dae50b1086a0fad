"""Many agents in one process: a connection, a lease, sealed facts and real checks of signatures each, but no command.

python -m benchmarks.host_simulator URL COUNT OPERATOR_KEY_FILE

Prints "ready", then a line of JSON for each job: when the first order came, when the last answer was out (monotonic).
"""

from __future__ import annotations

import json
import select
import sys
import time
from pathlib import Path
from typing import Any

from opsq.datastore import keys
from opsq.datastore.line import Line
from opsq.hosts.facts import fixed_facts, sealed_facts
from opsq.hosts.order import Answer, Order, is_for
from opsq.hosts.outbox import described
from opsq.protocol import signing
from opsq.protocol.signing import PrivateKey, PublicKey, Sealed

LEASE_S = 600
NOTHING = described(b"", 0)


class Simulated:
    """One host."""

    def __init__(self, url: str, number: int, operator: PublicKey) -> None:
        self.name, self._operator = f"sim{number:04d}", operator
        self._key = PrivateKey(number.to_bytes(32, "big"))
        self.line = Line(url, protocol=2)
        facts = {**fixed_facts(self.name, self._key.public, []), "at": time.time(), "since": time.time()}
        self.line.send(
            ("SADD", keys.HOSTS, self.name),
            ("SET", keys.host_facts(self.name), sealed_facts(self._key, facts), "EX", LEASE_S),
            ("SET", keys.host_lease(self.name), f"sim/{number}", "EX", LEASE_S),
        )
        for _reply in range(3):
            self.line.receive()
        self._orders, self._taken = keys.host_orders(self.name), keys.host_taken(self.name)
        self._wait()

    def _wait(self, *before: tuple[Any, ...]) -> None:
        self.line.send(*before, ("BLMOVE", self._orders, self._taken, "LEFT", "RIGHT", 0))
        self._pending = len(before)

    def answer(self) -> str | None:
        """Take what has arrived: replies to answers, or an order, which is checked and answered; its job."""
        while self._pending:
            self.line.receive()
            self._pending -= 1
            if not self.line.readable(0):
                return None
        raw = self.line.receive()
        parts = Sealed.split(raw)
        assert parts is not None
        assert parts.is_by(self._operator, signing.ORDER)
        order = Order.parse(parts.body)
        assert is_for(order, self.name)
        now = time.time()
        told = {"begin": now, "clock": 0.0}
        stream = keys.job_answers(order.job)
        answers = [
            Answer("accepted", order.job, order.part, order.nonce, self.name, "sim", **told),  # type: ignore[arg-type]
            Answer(
                "ended", order.job, order.part, order.nonce, self.name, "sim",
                exit=0, end=now, out=NOTHING, err=NOTHING, **told,  # type: ignore[arg-type]
            ),
        ]  # fmt: skip
        sealed = [signing.seal(self._key, signing.ANSWER, answer.to_bytes()) for answer in answers]
        sends = [("XADD", stream, "*", "a", value) for value in sealed]
        self._wait(*sends, ("EXPIRE", stream, keys.JOB_S), ("LREM", self._taken, 1, raw))
        return order.job


def main() -> None:
    """Simulate until killed."""
    url, count, key_file = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    operator = PublicKey.parse(key_file.read_text())
    hosts = {}
    poll = select.epoll()
    for number in range(1, count + 1):
        host = Simulated(url, number, operator)
        hosts[host.line.fileno()] = host
        poll.register(host.line.fileno(), select.EPOLLIN)
    print("ready", flush=True)
    seen: dict[str, int] = {}
    first: dict[str, float] = {}
    while True:
        for fd, _event in poll.poll():
            now = time.monotonic()
            job = hosts[fd].answer()
            if job is None:
                continue
            first.setdefault(job, now)
            seen[job] = seen.get(job, 0) + 1
            if seen[job] == count:
                print(json.dumps({"job": job, "first": first[job], "last": time.monotonic()}), flush=True)


if __name__ == "__main__":
    main()
