"""The log lines of single tasks, kept in Redis for a day: the latest of each, of as many tasks as there is room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from opsq.broker.broker import LUA, Broker
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.datastore.line import Line
from opsq.datastore.scripts import Script

if TYPE_CHECKING:
    from redis import Redis

KEEP = Script(LUA / "keep_lines.lua")

_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(tuple[float, str, str]).decode


@dataclass(frozen=True, slots=True)
class LogLine:
    """What a task logged or printed, and when (Unix seconds)."""

    time: float
    level: str
    message: str

    def encode(self) -> bytes:
        """As it is kept, with its newline; of a long message the beginning."""
        message = self.message
        if len(message) > keys.TASK_LOG_LINE:
            message = f"{message[: keys.TASK_LOG_LINE]}… (cut)"
        message = message.encode(errors="replace").decode()
        return _encode((self.time, self.level, message)) + b"\n"


def keep(client: Redis, key_prefix: str, lines: Mapping[str, bytes], most_bytes: int) -> None:
    """Put lines behind those of their tasks (by id). `most_bytes`: of all tasks together. Raises RedisError."""
    front = key_prefix + keys.task_log("")
    names = [key_prefix + keys.TASK_LOGS, key_prefix + keys.TASK_LOG_SIZES, *(front + task_id for task_id in lines)]
    pairs = [word for pair in lines.items() for word in pair]
    KEEP.run(client, names, [front, keys.TASK_LOG_S, keys.TASK_LOG_BYTES, most_bytes, *pairs])


def read(broker: Broker, task_id: str) -> list[LogLine]:
    """What is kept of a task, the oldest line first."""
    with errors(broker.url):
        data: Any = broker.client.get(broker.key(keys.task_log(task_id)))
    return _lines(data)


def _lines(data: bytes | None) -> list[LogLine]:
    """As they were logged; several processes may have written, each a moment later."""
    found: list[LogLine] = []
    for line in (data or b"").splitlines():
        try:
            found.append(LogLine(*_decode(line)))
        except msgspec.DecodeError:  # somebody else's
            continue
    return sorted(found, key=lambda line: line.time)


def follow(broker: Broker, task_id: str, look_s: float, ended: Callable[[], bool]) -> Iterator[Sequence[LogLine]]:
    """What is kept, then what comes, until the task has ended: `ended` is asked when nothing came for `look_s`, and
    after that the last lines have as long to come.
    """
    key = broker.key(keys.task_log(task_id))
    line = Line(broker.url)
    line.on_push = line.keep
    with errors(broker.url):
        try:
            line.send(("SUBSCRIBE", key), ("GET", key))
            # in one write, on one connection: what is announced before the answer is in it already
            while isinstance(kept := line.receive(), list):
                continue
            yield _lines(kept)
            seen_to_end = False
            while True:
                if new := b"".join([push[2] for push in line.drain() if push[0] == b"message"]):
                    yield _lines(new)
                if line.readable(look_s):
                    line.read()
                elif seen_to_end:
                    return
                else:
                    seen_to_end = ended()
        finally:
            line.close()
