"""Answers on their way to Redis: over a connection of their own, again and again until Redis has them."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from opsq.datastore import keys
from opsq.datastore.line import Line
from opsq.datastore.trouble import RedisError, ResponseError
from opsq.hosts.order import Answer, Output
from opsq.protocol import signing
from opsq.protocol.signing import Signer
from opsq.runtime.backoff import delay_s

logger = logging.getLogger("opsq.agent")

#: A connection without use is given back after this time (seconds).
_IDLE_S = 30.0
#: Answers that wait while Redis is away: the oldest go first beyond this.
_MOST_WAITING = 1_000
_AT_ONCE = 50
#: Refusals of Redis that pass: full, loading, a replica for the moment, a disk that is full.
_PASSING = ("OOM", "LOADING", "READONLY", "MISCONF", "MASTERDOWN", "TRYAGAIN")


@dataclass(frozen=True, slots=True)
class Letter:
    """One answer with the outputs it names; `done`: the order that is out of the agent's hand with it."""

    job: str
    sealed: bytes
    outputs: Sequence[bytes] = ()
    done: bytes | None = None


class Outbox:
    """A thread that sends. `put` never blocks."""

    def __init__(self, url: str, host: str, signer: Signer) -> None:
        self._url, self._host, self._signer = url, host, signer
        self._letters: deque[Letter] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def put(self, answer: Answer, outputs: Sequence[bytes] = (), done: bytes | None = None) -> None:
        """Seal an answer and have it sent."""
        sealed = signing.seal(self._signer, signing.ANSWER, answer.to_bytes())
        with self._changed:
            if len(self._letters) >= _MOST_WAITING:
                self._letters.popleft()
            self._letters.append(Letter(answer.job, sealed, [data for data in outputs if data], done))
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._send_all, name="answers", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def holds(self, raw: bytes) -> bool:
        """Whether the last answer about this very order is still on its way."""
        with self._changed:
            return any(letter.done == raw for letter in self._letters)

    def flush(self, patience_s: float) -> None:
        """Wait until all is sent, for as long as that."""
        with self._changed:
            self._changed.wait_for(lambda: not self._letters, patience_s)

    def close(self, patience_s: float) -> None:
        """Send what is left, for as long as that; then no more."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(patience_s)

    def _send_all(self) -> None:
        line: Line | None = None
        failures = 0
        while True:
            with self._changed:
                has_work = self._changed.wait_for(lambda: self._letters or self._closing, _IDLE_S)
                batch = [self._letters[at] for at in range(min(len(self._letters), _AT_ONCE))]
                if not batch:
                    if line is not None:
                        line.close()
                    line = None
                    if self._closing:
                        return
                    if not has_work:
                        self._thread = None
                        return
                    continue
            try:
                line = line or Line(self._url, protocol=2)
                self._send(line, batch)
                failures = 0
                with self._changed:
                    for letter in batch:
                        if self._letters and self._letters[0] is letter:
                            self._letters.popleft()
                    self._changed.notify_all()
            except (RedisError, OSError) as error:
                failures += 1
                if failures == 1:
                    logger.warning("answers wait: %s", error)
                if line is not None:
                    line.close()
                line = None
                self._pause(delay_s(failures, first_s=0.1, most_s=5.0))

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            with self._changed:
                self._changed.wait(left)

    def _send(self, line: Line, batch: Sequence[Letter]) -> None:
        """First the outputs that Redis does not have, then the answers, then the orders are out of hand."""
        wanted = {(letter.job, digest(data)): data for letter in batch for data in letter.outputs}
        asks = [("EXPIRE", keys.job_output(job, name), keys.JOB_OUTPUT_S) for job, name in wanted]
        missing = [place for place, known in zip(wanted, _ask(line, asks), strict=True) if known != 1]
        commands: list[tuple[Any, ...]] = [
            ("SET", keys.job_output(*place), wanted[place], "EX", keys.JOB_OUTPUT_S, "NX") for place in missing
        ]
        for letter in batch:
            stream = keys.job_answers(letter.job)
            commands += [("XADD", stream, "*", "a", letter.sealed), ("EXPIRE", stream, keys.JOB_S)]
        taken = keys.host_taken(self._host)
        commands += [("LREM", taken, 1, letter.done) for letter in batch if letter.done is not None]
        for answer in _ask(line, commands):
            if isinstance(answer, ResponseError):
                logger.error("Redis refused an answer: %s", answer)


def _ask(line: Line, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    if not commands:
        return []
    line.send(*commands)
    return [_answer(line) for _command in commands]


def _answer(line: Line) -> Any:
    """What a command came to; an error that will not pass by itself is handed on as a value."""
    try:
        return line.receive()
    except ResponseError as error:
        if str(error).startswith(_PASSING):
            raise
        return error


def digest(data: bytes) -> str:
    """The name of an output: its SHA-256."""
    return hashlib.sha256(data).hexdigest()


def described(kept: bytes, total: int) -> Output:
    """What an answer says of an output."""
    return Output(total, len(kept), digest(kept))
